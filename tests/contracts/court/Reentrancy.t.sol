// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {CaseState} from "../../../contracts/types/Cases.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title A token that calls back, and callers that use it: as buyer, challenger, juror and settler at once
contract CourtReentrancyTest is CourtFixture {
    Reentrant private _thief;

    function setUp() public override {
        super.setUp();
        _seatJurors(3);
        _thief = new Reentrant(HookToken(address(token)));
        _mint(address(_thief), FUNDS);
        address[3] memory spenders = [address(escrow), address(registry), address(court)];
        for (uint256 i = 0; i < 3; ++i) {
            _thief.act(address(token), abi.encodeCall(IERC20.approve, (spenders[i], type(uint256).max)));
        }
    }

    function test_EnrolIsNotPaidOutBeforeItIsPaidIn() public {
        _stake();
        bytes memory take = abi.encodeCall(ICourt.withdraw, (50e6));
        _thief.arm(address(court), take);
        vm.expectRevert(_error(ICourt.Court_WrongDelta.selector, 0, 50e6));
        _thief.act(address(court), abi.encodeCall(ICourt.enrol, (50e6)));
        _thief.arm(address(court), abi.encodeCall(ICourt.enrol, (50e6)));
        vm.expectRevert(_error(ICourt.Court_WrongDelta.selector, 100e6, 50e6));
        _thief.act(address(court), abi.encodeCall(ICourt.enrol, (50e6)));
        _assertSolvent(0);
    }

    function test_WithdrawInsideItselfFindsNothing() public {
        _stake();
        bytes memory take = abi.encodeCall(ICourt.withdraw, (50e6));
        _thief.act(address(court), abi.encodeCall(ICourt.enrol, (50e6)));
        _thief.arm(address(court), take);
        _thief.act(address(court), take);
        assertFalse(_thief.reentered());
        assertEq(_thief.answer(), _error(ICourt.Court_AboveBalance.selector, 50e6, 0));
        _assertSolvent(0);
    }

    function test_AwardOfAContractWaitsInItsBalanceAndIsTakenOnce() public {
        _sessionOfThief();
        Job memory job = _job(1, 50e6);
        court.proveOvercharge(_evidence(job), _offer());
        uint256 before = token.balanceOf(address(_thief));
        court.payAward(_orderHash(job));
        court.payAward(_orderHash(job));
        assertEq(token.balanceOf(address(_thief)), before);
        assertEq(_balance(address(_thief)), 200e6);
        assertEq(token.balanceOf(address(court)), 3 * JUROR_BALANCE + 200e6);
        assertEq(registry.slashed(), MIN_STAKE - 200e6);

        bytes memory take = abi.encodeCall(ICourt.withdraw, (200e6));
        _thief.arm(address(court), take);
        _thief.act(address(court), take);
        assertFalse(_thief.reentered());
        assertEq(token.balanceOf(address(_thief)), before + 200e6);
    }

    function test_ChallengeInsideItsBondIsRefused() public {
        (bytes memory call, bytes32 caseId) = _challengeOfThief();
        _thief.arm(address(court), call);
        _thief.act(address(court), call);
        assertFalse(_thief.reentered());
        assertEq(_thief.answer(), _wrongState(caseId));
        assertEq(token.balanceOf(address(court)), 3 * JUROR_BALANCE + BOND);
    }

    /// @dev Whoever is buyer and settler answers before the bond has arrived; the bond comes, or all is undone.
    function test_AnswerInsideTheDemandsBondKeepsEveryBond() public {
        (bytes memory call, bytes32 caseId) = _demandOfThief();
        _thief.arm(address(court), abi.encodeCall(ICourt.answer, (caseId, "sealed")));
        _thief.act(address(court), call);
        assertTrue(_thief.reentered());
        _assertState(caseId, CaseState.Answered);
        assertEq(escrow.claimOf(sessionId).held, 10e6);
        assertEq(_balance(address(_thief)), BOND);
        assertEq(token.balanceOf(address(court)), 3 * JUROR_BALANCE + BOND);
    }

    function test_AdvanceInsideTheBondDoesNothing() public {
        (bytes memory call, bytes32 caseId) = _challengeOfThief();
        _thief.arm(address(court), abi.encodeCall(ICourt.advance, (caseId)));
        _thief.act(address(court), call);
        assertTrue(_thief.reentered());
        _assertState(caseId, CaseState.Drawing);
        assertEq(court.caseOf(caseId).tries, 0);
    }

    /// @dev In the middle of a demand, a voucher takes the claim away: the demand finds none and is undone.
    function test_ClaimReplacedInsideTheDemandsBondUndoesTheDemand() public {
        (bytes memory call, bytes32 caseId) = _demandOfThief();
        _thief.arm(address(escrow), abi.encodeCall(IEscrow.settle, (_items(1, 10e6))));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
        _thief.act(address(court), call);
        _assertState(caseId, CaseState.None);
        assertEq(escrow.claimOf(sessionId).pending, 10e6);
    }

    function _stake() private {
        _thief.act(address(registry), abi.encodeCall(INodeRegistry.register, ("")));
        _thief.act(address(registry), abi.encodeCall(INodeRegistry.stake, (MIN_STAKE)));
        jurors.push(address(_thief));
    }

    function _sessionOfThief() private {
        _thief.act(address(escrow), abi.encodeCall(IEscrow.deposit, (1000e6)));
        terms.buyer = address(_thief);
        _thief.act(address(escrow), abi.encodeCall(IEscrow.openOneSession, (terms, "")));
        sessionId = escrow.sessionIdOf(terms);
        vm.prank(provider);
        registry.setSettler(nodeId, address(_thief));
        settler = address(_thief);
    }

    function _demandOfThief() private returns (bytes memory call, bytes32 caseId) {
        _sessionOfThief();
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        return (abi.encodeCall(ICourt.demand, (_evidence(job, hashes))), hashes[0]);
    }

    function _challengeOfThief() private returns (bytes memory call, bytes32 caseId) {
        _sessionOfThief();
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        return (abi.encodeCall(ICourt.challenge, (_evidence(job, hashes), EVIDENCE_HASH)), hashes[0]);
    }

    function _items(uint32 throughSeq, uint128 amount) private view returns (SettleItem[] memory items) {
        items = new SettleItem[](1);
        items[0] = _item(key, sessionId, throughSeq, amount);
    }

    function _newToken() internal override returns (IERC20) {
        return new HookToken();
    }
}
