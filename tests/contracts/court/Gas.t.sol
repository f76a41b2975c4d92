// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title What the court's whole transactions cost, calldata and base included
/// @notice Every call runs as a transaction of its own. Steady state: something was slashed before, and everybody in
/// the case had money in the court.
contract CourtGasTest is CourtFixture {
    uint256 private constant _OVERCHARGE_LIMIT = 103_000;
    uint256 private constant _TWO_RECEIPTS_LIMIT = 106_000;
    uint256 private constant _CHALLENGE_LIMIT = 250_000;
    uint256 private constant _DRAW_LIMIT = 250_000;
    uint256 private constant _WORST_DRAW_LIMIT = 920_000;
    uint256 private constant _COUNT_LIMIT = 180_000;

    /// hardhat-config: default.isolate = true
    function test_ProofsStayUnderTheirLimits() public {
        vm.prank(provider);
        registry.stake(100_000e6);
        Evidence memory evidence = _evidence(_job(1, 20e6));
        court.proveOvercharge(evidence, _offer());
        evidence = _evidence(_job(2, 20e6));
        court.proveOvercharge(evidence, _offer());
        assertLe(_used("prove overcharge"), _OVERCHARGE_LIMIT);

        Job memory job = _job(3, 10e6);
        evidence = _evidence(job);
        (JobReceipt memory second, bytes memory signature) = _second(job, 10e6);
        court.proveTwoReceipts(evidence, second, signature);
        assertLe(_used("prove two receipts"), _TWO_RECEIPTS_LIMIT);
        court.payAward(evidence.receipt.orderHash);
        _used("pay an award");
    }

    /// hardhat-config: default.isolate = true
    function test_StepsOfACaseStayUnderTheirLimits() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        assertLe(_used("challenge what was paid"), _CHALLENGE_LIMIT);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        court.advance(caseId);
        assertLe(_used("draw three of six"), _DRAW_LIMIT);
        for (uint256 i = 0; i < 3; ++i) {
            _commitOne(caseId, i, Verdict.Guilty);
        }
        for (uint256 i = 0; i < 3; ++i) {
            _revealOne(caseId, i, Verdict.Guilty);
        }
        assertLe(_used("reveal and count"), _COUNT_LIMIT);
    }

    /// @dev 64 tries at jurors of whom none is eligible, each at a place with a history.
    /// hardhat-config: default.isolate = true
    function test_DrawInVainStaysUnderItsLimit() public {
        _seatJurors(66);
        for (uint256 i = 0; i < 66; ++i) {
            vm.prank(jurors[i]);
            registry.requestUnstake(1);
        }
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        court.advance(caseId);
        assertLe(_used("64 tries in vain"), _WORST_DRAW_LIMIT);
        _assertState(caseId, CaseState.Drawing);
    }

    function _used(string memory name) private returns (uint256 gas) {
        gas = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(name, gas);
    }
}
