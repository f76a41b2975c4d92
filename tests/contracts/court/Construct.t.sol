// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CourtRules} from "../../../contracts/types/Cases.sol";
import {Fixture} from "../support/Fixture.sol";

contract CourtConstructTest is Fixture {
    function test_ConstructKeepsItsArguments() public view {
        assertEq(address(court.ESCROW()), address(escrow));
        assertEq(address(court.REGISTRY()), address(registry));
        assertEq(abi.encode(court.rules()), abi.encode(_courtRules()));
        assertEq(court.jurorCount(), 0);
        assertEq(court.burned(), 0);
    }

    /// @dev A claim waits, its job is demanded and answered at the last second, the answer is judged as late, and in
    /// each of two rounds jurors are drawn, keep silent, are replaced and reveal.
    function test_ConstructAddsUpTheLongestCase() public view {
        assertEq(court.LONGEST_SECONDS(), 2 * CHALLENGE + 6 hours + 2 * (2 * (1 hours + 1 hours) + 1 hours));
    }

    function test_ConstructNeedsTheLongestCaseToFitTheRegistrysTime() public {
        CourtRules memory rules = _courtRules();
        rules.answerSeconds = 14 hours;
        assertEq(ICourt(_deploy(rules)).LONGEST_SECONDS(), DISPUTE);
        ++rules.answerSeconds;
        _refuse(rules, DISPUTE, DISPUTE + 1);
        rules.answerSeconds = type(uint32).max;
        rules.drawSeconds = type(uint32).max;
        rules.commitSeconds = type(uint32).max;
        rules.revealSeconds = type(uint32).max;
        _refuse(rules, DISPUTE, 2 * uint256(CHALLENGE) + 11 * uint256(type(uint32).max));
    }

    function test_ConstructNeedsWindowsOf30Seconds() public {
        for (uint256 i = 0; i < 4; ++i) {
            _refuse(_withWindow(i, 29), 29, 30);
            _deploy(_withWindow(i, 30));
        }
    }

    function test_ConstructNeedsABondThatPaysAllJurors() public {
        CourtRules memory rules = _courtRules();
        rules.bond = 3 * rules.jurorFee - 1;
        _refuse(rules, 3 * rules.jurorFee - 1, 3 * rules.jurorFee);
        ++rules.bond;
        _deploy(rules);
    }

    function test_ConstructNeedsAFeeADepositAboveItAndAWeight() public {
        CourtRules memory rules = _courtRules();
        rules.jurorFee = 0;
        _refuse(rules, 0, 1);
        rules = _courtRules();
        rules.jurorDeposit = rules.jurorFee - 1;
        _refuse(rules, rules.jurorFee - 1, rules.jurorFee);
        rules = _courtRules();
        rules.fullWeight = 0;
        _refuse(rules, 0, 1);
    }

    function test_ConstructNeedsAnEscrowThatNamesIt() public {
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)));
        vm.expectRevert(_wrong(uint160(address(court)), uint160(next)));
        _deployCourt(address(escrow), _courtRules());
    }

    function test_ConstructNeedsARegistryThatNamesIt() public {
        uint64 nonce = vm.getNonce(address(this));
        address registryAt = vm.computeCreateAddress(address(this), nonce + 2);
        address courtAt = vm.computeCreateAddress(address(this), nonce + 3);
        address ours = _escrowOf(registryAt, courtAt);
        _deployRegistry(address(token), _escrowOf(registryAt, stranger), UNSTAKE_DELAY);
        vm.expectRevert(_wrong(uint160(stranger), uint160(courtAt)));
        _deployCourt(ours, _courtRules());
    }

    function _deploy(CourtRules memory rules) private returns (address) {
        return address(_deployCourt(_freshEscrow(), rules));
    }

    function _refuse(CourtRules memory rules, uint256 got, uint256 limit) private {
        address fresh = _freshEscrow();
        vm.expectRevert(_wrong(got, limit));
        _deployCourt(fresh, rules);
    }

    /// @dev With its registry, for a court that is deployed next.
    function _freshEscrow() private returns (address fresh) {
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        fresh = address(_deployEscrow(address(token), registryAt, treasury, MAX_SESSION));
        _deployRegistry(address(token), fresh, UNSTAKE_DELAY);
    }

    function _escrowOf(address registryAt, address courtAt) private returns (address) {
        bytes memory arguments = abi.encode(token, registryAt, courtAt, treasury, MAX_SESSION, GRACE, CHALLENGE);
        return deployCode("Escrow.sol:Escrow", arguments);
    }

    function _withWindow(uint256 which, uint32 length) private pure returns (CourtRules memory rules) {
        rules = _courtRules();
        if (which == 0) rules.answerSeconds = length;
        if (which == 1) rules.drawSeconds = length;
        if (which == 2) rules.commitSeconds = length;
        if (which == 3) rules.revealSeconds = length;
    }

    function _wrong(uint256 got, uint256 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_WrongRules.selector, got, limit);
    }
}
