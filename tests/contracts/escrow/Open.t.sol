// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Messages, Open} from "../../../contracts/types/Messages.sol";
import {Session} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

contract OpenTest is Fixture {
    function testFuzz_OpenMovesAccountIntoSession(uint128 funds, uint128 amount, uint32 length, bytes32 salt) public {
        funds = uint128(bound(funds, 1, FUNDS));
        amount = uint128(bound(amount, 1, funds));
        length = uint32(bound(length, 1, MAX_SESSION));
        _deposit(funds);
        Open memory terms = _terms(amount);
        (terms.salt, terms.expiresAt) = (salt, START + length);
        bytes32 sessionId = escrow.sessionIdOf(terms);
        vm.expectEmit(address(escrow));
        emit IEscrow.SessionOpened(sessionId, buyer.addr, nodeId, key.addr, amount, terms.expiresAt, 1);
        assertEq(_openOne(terms), sessionId);

        Session memory held = _held(sessionId);
        assertEq(held.deposited, amount);
        assertEq(held.paid, 0);
        assertEq(held.throughSeq, 0);
        assertEq(held.nodeId, nodeId);
        assertEq(held.expiresAt, terms.expiresAt);
        assertEq(held.keyEpoch, 1);
        assertEq(held.flags, 1);
        assertEq(escrow.accountOf(buyer.addr), funds - amount);
        assertEq(token.balanceOf(address(escrow)), funds);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_OpenRefusesEverySignerButBuyerAndKey(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != buyer.addr && other.addr != key.addr);
        _deposit(10);
        Open memory terms = _terms(10);
        bytes[] memory signatures = _one(_signOpen(other, terms));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, other.addr, buyer.addr));
        escrow.open(_one(terms), signatures);
    }

    function test_OpenTakesTheShortSignatureForm() public {
        _deposit(10);
        Open memory terms = _terms(10);
        escrow.open(_one(terms), _one(_signShort(buyer, Messages.hash(terms))));
        assertEq(_held(escrow.sessionIdOf(terms)).deposited, 10);
    }

    function test_OpenNeedsNoSignatureFromTheBuyerItself() public {
        _deposit(10);
        Open memory terms = _terms(10);
        vm.prank(buyer.addr);
        escrow.open(_one(terms), _one(""));
        assertEq(escrow.accountOf(buyer.addr), 0);
    }

    function test_OpenRefusesAnEmptySignatureFromAnyoneElse() public {
        _deposit(10);
        Open memory terms = _terms(10);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), buyer.addr));
        vm.prank(stranger);
        escrow.open(_one(terms), _one(""));
    }

    function test_OpenRefusesHighSAndMalformedSignatures() public {
        _deposit(10);
        Open memory terms = _terms(10);
        bytes memory good = _signOpen(buyer, terms);
        bytes[4] memory bad = [_signHigh(buyer, Messages.hash(terms)), good, new bytes(65), new bytes(63)];
        bad[1][64] = bytes1(uint8(good[64]) - 27);
        for (uint256 i = 0; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), buyer.addr));
            escrow.open(_one(terms), _one(bad[i]));
        }
    }

    /// @dev What may follow a signature is a key's proof; a buyer has none.
    function test_OpenRefusesABuyersSignatureWithAnythingBehindIt() public {
        _deposit(10);
        Open memory terms = _terms(10);
        bytes memory longer = bytes.concat(_signOpen(buyer, terms), bytes32(0));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, buyer.addr));
        escrow.openOneSession(terms, longer);
    }

    function test_OpenRefusesASignatureForAnotherChainOrEscrow() public {
        _deposit(10);
        Open memory terms = _terms(10);
        bytes memory signature = _signOpen(buyer, terms);
        vm.chainId(1);
        vm.expectPartialRevert(IEscrow.Escrow_WrongSigner.selector);
        escrow.open(_one(terms), _one(signature));
    }

    function test_OpenTwiceIsANoOpEvenWhenClosedOrLate() public {
        (Open memory terms, bytes32 sessionId) = _session(10);
        _deposit(10);
        assertEq(_openOne(terms), sessionId);
        assertEq(escrow.accountOf(buyer.addr), 10);

        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        escrow.open(_one(terms), _one("nobody's signature"));
        assertEq(escrow.accountOf(buyer.addr), 20);
        assertEq(_held(sessionId).flags, 3);
    }

    function test_OpenSameTermsTwiceInOneCallMovesOnce() public {
        _deposit(20);
        Open[] memory opens = new Open[](2);
        bytes[] memory signatures = new bytes[](2);
        (opens[0], opens[1]) = (_terms(10), _terms(10));
        signatures[0] = _signOpen(buyer, opens[0]);
        escrow.open(opens, signatures);
        assertEq(escrow.accountOf(buyer.addr), 10);
    }

    function test_OpenManyOfManyBuyersOrNone() public {
        Actor memory second = _actor("second buyer");
        _fund(second.addr);
        vm.prank(second.addr);
        escrow.deposit(5);
        _deposit(10);
        Open[] memory opens = new Open[](2);
        bytes[] memory signatures = new bytes[](2);
        (opens[0], opens[1]) = (_terms(10), _terms(6));
        opens[1].buyer = second.addr;
        signatures[0] = _signOpen(buyer, opens[0]);
        signatures[1] = _signOpen(second, opens[1]);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, 6, 5));
        escrow.open(opens, signatures);
        assertEq(escrow.accountOf(buyer.addr), 10);

        opens[1].amount = 5;
        signatures[1] = _signOpen(second, opens[1]);
        escrow.open(opens, signatures);
        assertEq(escrow.accountOf(buyer.addr), 0);
        assertEq(escrow.accountOf(second.addr), 0);
    }

    function test_OpenRefusesListsOfDifferentLength() public {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_LengthMismatch.selector, 0, 1));
        escrow.open(_one(_terms(1)), new bytes[](0));
    }

    function test_OpenBeforeIsExclusive() public {
        _deposit(10);
        Open memory terms = _terms(10);
        vm.warp(terms.openBefore);
        _refused(
            terms, abi.encodeWithSelector(IEscrow.Escrow_OpenedTooLate.selector, terms.openBefore, terms.openBefore)
        );
        vm.warp(terms.openBefore - 1);
        _openOne(terms);
    }

    function test_OpenRefusesASessionThatIsOver() public {
        _deposit(10);
        Open memory terms = _terms(10);
        terms.expiresAt = START;
        _refused(terms, abi.encodeWithSelector(IEscrow.Escrow_SessionOver.selector, START, START));
    }

    function test_OpenRefusesASessionLongerThanAllowed() public {
        _deposit(10);
        Open memory terms = _terms(10);
        terms.expiresAt = START + MAX_SESSION + 1;
        _refused(
            terms,
            abi.encodeWithSelector(IEscrow.Escrow_SessionTooLong.selector, terms.expiresAt, START + MAX_SESSION)
        );
        terms.expiresAt = START + MAX_SESSION;
        _openOne(terms);
    }

    function test_OpenRefusesAKeyOfZeroAndAnAmountOfZero() public {
        _deposit(10);
        Open memory terms = _terms(10);
        terms.key = address(0);
        _refused(terms, abi.encodeWithSelector(IEscrow.Escrow_ZeroKey.selector));
        _refused(_terms(0), abi.encodeWithSelector(IEscrow.Escrow_ZeroAmount.selector));
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_OpenRefusesAmountsThatDoNotFitTheSlot(uint128 amount) public {
        uint128 limit = type(uint64).max;
        amount = uint128(bound(amount, limit + 1, type(uint128).max));
        _refused(_terms(amount), abi.encodeWithSelector(IEscrow.Escrow_AmountTooLarge.selector, amount, limit));
    }

    function test_OpenNeedsANodeWithEnoughStake() public {
        _deposit(10);
        Open memory terms = _terms(10);
        terms.nodeId = 99;
        _refused(terms, abi.encodeWithSelector(IEscrow.Escrow_NotServing.selector, 99));
        vm.prank(provider);
        registry.requestUnstake(1);
        _refused(_terms(10), abi.encodeWithSelector(IEscrow.Escrow_NotServing.selector, nodeId));
    }

    function test_OpenRecordsTheEpochOfItsTime() public {
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, makeAddr("second node key"), 0);
        (, bytes32 sessionId) = _session(10);
        assertEq(_held(sessionId).keyEpoch, 2);
    }

    function _refused(Open memory terms, bytes memory reason) private {
        bytes[] memory signatures = _one(_signOpen(buyer, terms));
        vm.expectRevert(reason);
        escrow.open(_one(terms), signatures);
    }
}
