// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Messages, Open, TopUp} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";

contract TopUpTest is Fixture {
    function testFuzz_TopUpRaisesToTheCumulativeAmount(uint128 first, uint128 total) public {
        first = uint128(bound(first, 1, FUNDS - 1));
        total = uint128(bound(total, first + 1, FUNDS));
        (Open memory terms, bytes32 sessionId) = _session(first);
        _deposit(FUNDS - first);
        bytes memory signature = _signTopUp(buyer, sessionId, total);
        vm.expectEmit(address(escrow));
        emit IEscrow.SessionToppedUp(sessionId, total - first, total);
        escrow.topUp(terms, total, signature);
        assertEq(_held(sessionId).deposited, total);
        assertEq(escrow.accountOf(buyer.addr), FUNDS - total);

        escrow.topUp(terms, total, signature);
        assertEq(escrow.accountOf(buyer.addr), FUNDS - total);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_TopUpNotAboveWhatIsHeldIsANoOp(uint128 total) public {
        total = uint128(bound(total, 0, 100));
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(100);
        escrow.topUp(terms, total, "");
        assertEq(_held(sessionId).deposited, 100);
        assertEq(escrow.accountOf(buyer.addr), 100);
    }

    function test_TopUpReplayedAfterTheEndIsANoOp() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(50);
        bytes memory signature = _signTopUp(buyer, sessionId, 120);
        escrow.topUp(terms, 120, signature);
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        escrow.topUp(terms, 120, signature);
        assertEq(escrow.accountOf(buyer.addr), 150);
    }

    function test_TopUpNeedsNoSignatureFromTheBuyerItself() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(50);
        vm.prank(buyer.addr);
        escrow.topUp(terms, 150, "");
        assertEq(_held(sessionId).deposited, 150);
    }

    function test_TopUpTakesTheShortSignatureForm() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(50);
        escrow.topUp(terms, 150, _signShort(buyer, Messages.hash(TopUp(sessionId, 150))));
        assertEq(_held(sessionId).deposited, 150);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_TopUpRefusesEverySignerButBuyerAndKey(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != buyer.addr && other.addr != key.addr);
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(50);
        bytes memory signature = _signTopUp(other, sessionId, 150);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, other.addr, buyer.addr));
        escrow.topUp(terms, 150, signature);
    }

    function test_TopUpRefusesMoreThanTheAccount() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(50);
        bytes memory signature = _signTopUp(buyer, sessionId, 151);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, 51, 50));
        escrow.topUp(terms, 151, signature);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_TopUpRefusesAmountsThatDoNotFitTheSlot(uint128 total) public {
        uint128 limit = type(uint64).max;
        total = uint128(bound(total, limit + 1, type(uint128).max));
        (Open memory terms,) = _session(100);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AmountTooLarge.selector, total, limit));
        vm.prank(buyer.addr);
        escrow.topUp(terms, total, "");
    }

    function test_TopUpRefusesTermsOfNoSession() public {
        Open memory terms = _terms(100);
        bytes32 sessionId = escrow.sessionIdOf(terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_UnknownSession.selector, sessionId));
        escrow.topUp(terms, 100, "");
    }

    function test_TopUpRefusesASessionThatIsOver() public {
        (Open memory terms,) = _session(100);
        _deposit(50);
        vm.warp(terms.expiresAt);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_SessionOver.selector, terms.expiresAt, terms.expiresAt)
        );
        vm.prank(buyer.addr);
        escrow.topUp(terms, 150, "");
        vm.warp(terms.expiresAt - 1);
        vm.prank(buyer.addr);
        escrow.topUp(terms, 150, "");
    }

    function test_TopUpRefusesAClosedSession() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_SessionClosed.selector, sessionId));
        vm.prank(buyer.addr);
        escrow.topUp(terms, 150, "");
    }
}
