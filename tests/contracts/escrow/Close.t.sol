// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Close, Messages, Open} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";

contract CloseTest is Fixture {
    function testFuzz_CloseReturnsExactlyTheRest(uint128 amount, uint128 paid, uint128 minPaid) public {
        amount = uint128(bound(amount, 1, FUNDS));
        paid = uint128(bound(paid, 0, amount));
        minPaid = uint128(bound(minPaid, 0, paid));
        (Open memory terms, bytes32 sessionId) = _session(amount);
        _settleOne(sessionId, 1, paid);
        bytes memory consent = _signClose(nodeKey, sessionId, minPaid);
        vm.expectEmit(address(escrow));
        emit IEscrow.SessionClosed(sessionId, paid, amount - paid);
        escrow.close(terms, minPaid, consent);
        assertEq(escrow.accountOf(buyer.addr), amount - paid);
        assertEq(_held(sessionId).flags, 3);
        assertEq(_held(sessionId).paid, paid);

        escrow.close(terms, minPaid, consent);
        assertEq(escrow.accountOf(buyer.addr), amount - paid);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_CloseWaitsForMinPaid(uint128 paid, uint128 minPaid) public {
        paid = uint128(bound(paid, 0, 99));
        minPaid = uint128(bound(minPaid, paid + 1, type(uint128).max));
        (Open memory terms, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, paid);
        bytes memory consent = _signClose(nodeKey, sessionId, minPaid);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_PaidTooLittle.selector, paid, minPaid));
        escrow.close(terms, minPaid, consent);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_CloseRefusesEverySignerButTheNode(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != nodeKey.addr);
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signClose(other, sessionId, 0);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, other.addr, nodeKey.addr));
        escrow.close(terms, 0, consent);
    }

    function test_CloseRefusesTheBuyerAndTheEmptySignature() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signClose(buyer, sessionId, 0);
        vm.startPrank(buyer.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, nodeKey.addr));
        escrow.close(terms, 0, consent);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), nodeKey.addr));
        escrow.close(terms, 0, "");
    }

    function test_CloseRefusesAHighS() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signHigh(nodeKey, Messages.hash(Close(sessionId, 0)));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), nodeKey.addr));
        escrow.close(terms, 0, consent);
    }

    function test_CloseTakesTheShortSignatureForm() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        escrow.close(terms, 0, _signShort(nodeKey, Messages.hash(Close(sessionId, 0))));
        assertEq(escrow.accountOf(buyer.addr), 100);
    }

    function test_CloseNeedsTheKeyOfTheSessionsEpoch() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        Actor memory second = _actor("second node key");
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, second.addr, 0);
        bytes memory consent = _signClose(second, sessionId, 0);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, second.addr, nodeKey.addr));
        escrow.close(terms, 0, consent);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        assertEq(escrow.accountOf(buyer.addr), 100);
    }

    function test_CloseConsentIsForOneSessionOnly() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signClose(nodeKey, sessionId, 0);
        terms.salt = bytes32(uint256(2));
        _deposit(100);
        _openOne(terms);
        vm.expectPartialRevert(IEscrow.Escrow_WrongSigner.selector);
        escrow.close(terms, 0, consent);
    }

    function test_CloseRefusesTermsOfNoSession() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signClose(nodeKey, sessionId, 0);
        terms.buyer = stranger;
        bytes32 other = escrow.sessionIdOf(terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_UnknownSession.selector, other));
        escrow.close(terms, 0, consent);
    }
}
