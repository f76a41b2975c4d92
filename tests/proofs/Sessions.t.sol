// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Claim} from "./../../contracts/types/Claims.sol";
import {Close, Messages, Open, TopUp} from "./../../contracts/types/Messages.sol";
import {Session} from "./../../contracts/types/Sessions.sol";
import {Proof} from "./support/Proof.sol";

/// @title Money into sessions and back, by anyone, with any signature, at any time
contract SessionProof is Proof {
    function check_OpenMovesExactlyTheAmountOutOfTheAccount(
        address caller,
        Open calldata terms,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        Session memory before = _held(terms);
        vm.assume(before.flags != 0 || before.paid == 0); // what was never opened was never paid
        uint256 account = escrow.accountOf(terms.buyer);
        if (!_open(caller, terms, signature)) return;

        Session memory afterwards = _held(terms);
        uint256 moved = account - escrow.accountOf(terms.buyer);
        if (before.flags != 0) {
            assertTrue(_same(before, afterwards));
            assertEq(moved, 0);
        } else {
            assertEq(moved, terms.amount);
            assertEq(afterwards.deposited, terms.amount);
            assertEq(afterwards.flags, OPEN);
            assertEq(afterwards.paid, 0);
        }
    }

    function check_OpenNeedsAKeyAndTheWordOfKeyOrBuyer(
        address caller,
        Open calldata terms,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(terms.buyer.code.length == 0); // a contract's word is its own affair
        vm.assume(escrow.accountOf(address(0)) == 0);
        uint8 flags = _held(terms).flags;
        if (!_open(caller, terms, signature) || flags != 0) return;

        assertTrue(terms.key != address(0));
        assertTrue(_isWord(caller, terms, Messages.hash(terms), signature));
    }

    /// @dev A signature by nobody recovers to 0, which is why 0 must never have money.
    function check_NobodyOpensForNobody(address caller, Open calldata terms, bytes calldata signature) external {
        vm.assume(terms.buyer == address(0) && escrow.accountOf(address(0)) == 0);
        vm.assume(_held(terms).flags == 0);
        assertFalse(_open(caller, terms, signature));
    }

    function check_OpenTakesOnlyANodeThatServes(
        address caller,
        Open calldata terms,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        (bool serves, uint16 epoch) = escrow.serving(terms.nodeId);
        uint8 flags = _held(terms).flags;
        if (!_open(caller, terms, signature) || flags != 0) return;

        assertTrue(serves);
        assertEq(_held(terms).keyEpoch, epoch);
        assertEq(_held(terms).nodeId, terms.nodeId);
        assertLe(terms.expiresAt, uint256(time) + 72 hours);
        assertLt(time, terms.openBefore);
    }

    function check_TopUpMovesExactlyTheDifferenceAndNeedsTheWordOfKeyOrBuyer(
        address caller,
        Open calldata terms,
        uint128 deposited,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(terms.buyer.code.length == 0 && escrow.accountOf(address(0)) == 0);
        vm.assume(terms.key != address(0)); // `open` refuses it
        Session memory before = _held(terms);
        uint256 account = escrow.accountOf(terms.buyer);
        bytes memory data = abi.encodeCall(IEscrow.topUp, (terms, deposited, signature));
        if (!_by(caller, data)) return;

        Session memory afterwards = _held(terms);
        uint256 moved = account - escrow.accountOf(terms.buyer);
        assertEq(moved, afterwards.deposited - before.deposited);
        if (moved > 0) {
            assertEq(afterwards.deposited, deposited);
            bytes32 message = Messages.hash(TopUp(escrow.sessionIdOf(terms), deposited));
            assertTrue(_isWord(caller, terms, message, signature));
        }
        afterwards.deposited = before.deposited;
        assertTrue(_same(before, afterwards));
    }

    function check_ExpireReturnsExactlyTheRestAndNeverEarly(address caller, Open calldata terms, uint40 time) external {
        vm.warp(time);
        Session memory before = _held(terms);
        _assumeSound(terms);
        uint256 account = escrow.accountOf(terms.buyer);
        if (!_by(caller, abi.encodeCall(IEscrow.expire, (_one(terms))))) return;

        _assertEnded(before, terms, account);
        if (before.flags & CLOSED == OPEN) assertGe(time, uint256(before.expiresAt) + GRACE);
    }

    function check_CloseReturnsExactlyTheRestAndOnlyWithTheNodesConsent(
        address caller,
        Open calldata terms,
        uint128 minPaid,
        bytes calldata signature
    ) external {
        Session memory before = _held(terms);
        _assumeSound(terms);
        uint256 account = escrow.accountOf(terms.buyer);
        if (!_by(caller, abi.encodeCall(IEscrow.close, (terms, minPaid, signature)))) return;

        _assertEnded(before, terms, account);
        if (before.flags & CLOSED == CLOSED) return;
        assertEq(before.flags, OPEN);
        assertGe(before.paid, minPaid);
        bytes32 message = Messages.hash(Close(escrow.sessionIdOf(terms), minPaid));
        assertEq(_signerOf(message, signature), registry.signerAt(before.nodeId, before.keyEpoch));
    }

    function check_ASecondExpireReturnsNothing(address caller, Open calldata terms, uint40 time) external {
        vm.warp(time);
        if (!_by(caller, abi.encodeCall(IEscrow.expire, (_one(terms))))) return;
        Session memory ended = _held(terms);
        uint256 account = escrow.accountOf(terms.buyer);
        assertTrue(_by(caller, abi.encodeCall(IEscrow.expire, (_one(terms)))));

        assertTrue(_same(ended, _held(terms)));
        assertEq(escrow.accountOf(terms.buyer), account);
    }

    function _open(address caller, Open calldata terms, bytes calldata signature) private returns (bool) {
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = signature;
        return _by(caller, abi.encodeCall(IEscrow.open, (_one(terms), signatures)));
    }

    /// @dev Whoever sends without a signature speaks for itself.
    function _isWord(address caller, Open calldata terms, bytes32 message, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (signature.length == 0) return caller == terms.buyer || caller == terms.key;
        address signer = _signerOf(message, signature);
        return signer != address(0) && (signer == terms.buyer || signer == terms.key);
    }

    function _assumeSound(Open calldata terms) private view {
        Session memory held = _held(terms);
        vm.assume(_sound(held, _claim(escrow.sessionIdOf(terms))) && _isKnown(held.flags));
    }

    /// @dev What was deposited is what the node was paid, what is claimed still, and what came back; only an open
    /// session ends.
    function _assertEnded(Session memory before, Open calldata terms, uint256 account) private view {
        Session memory afterwards = _held(terms);
        Claim memory claimed = _claim(escrow.sessionIdOf(terms));
        uint256 returned = escrow.accountOf(terms.buyer) - account;
        if (before.flags & CLOSED != OPEN) {
            assertEq(returned, 0);
            assertTrue(_same(before, afterwards));
            return;
        }
        assertEq(returned + afterwards.paid + claimed.pending + claimed.held, before.deposited);
        assertEq(afterwards.flags, before.flags | CLOSED);
        afterwards.flags = before.flags;
        assertTrue(_same(before, afterwards));
    }
}
