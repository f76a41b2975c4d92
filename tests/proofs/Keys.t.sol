// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Key, KeyCaps} from "./../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open, TopUp} from "./../../contracts/types/Messages.sol";
import {Proof} from "./support/Proof.sol";

/// @title What a key can move, and what lets it
contract KeyProof is Proof {
    function check_AKeyOpensInsideItsCapsAndIsChargedExactly(
        address caller,
        Open calldata terms,
        bytes32 r,
        bytes32 vs,
        uint40 time
    ) external {
        vm.warp(time);
        Key memory before = escrow.keyOf(terms.buyer, terms.key);
        vm.assume(_held(terms).flags == 0);
        bytes memory signature = _keysWord(caller, terms, Messages.hash(terms), r, vs);
        if (!_by(caller, abi.encodeCall(IEscrow.openOneSession, (terms, signature)))) return;

        assertLe(terms.amount, before.perSession);
        _assertCharged(before, terms, terms.amount, time);
    }

    function check_AKeyOpensByItsOwnCallInsideItsCaps(Open calldata terms, uint40 time) external {
        vm.warp(time);
        vm.assume(terms.key != terms.buyer);
        Key memory before = escrow.keyOf(terms.buyer, terms.key);
        vm.assume(_held(terms).flags == 0);
        if (!_by(terms.key, abi.encodeCall(IEscrow.openOneSession, (terms, "")))) return;

        assertLe(terms.amount, before.perSession);
        _assertCharged(before, terms, terms.amount, time);
    }

    function check_AKeyTopsUpInsideItsCapsAndIsChargedExactly(
        address caller,
        Open calldata terms,
        uint128 deposited,
        bytes32 r,
        bytes32 vs,
        uint40 time
    ) external {
        vm.warp(time);
        Key memory before = escrow.keyOf(terms.buyer, terms.key);
        uint64 held = _held(terms).deposited;
        bytes32 message = Messages.hash(TopUp(escrow.sessionIdOf(terms), deposited));
        bytes memory signature = _keysWord(caller, terms, message, r, vs);
        if (!_by(caller, abi.encodeCall(IEscrow.topUp, (terms, deposited, signature)))) return;

        if (deposited <= held) {
            assertTrue(_same(before, escrow.keyOf(terms.buyer, terms.key)));
            return;
        }
        assertLe(deposited, before.perSession);
        _assertCharged(before, terms, deposited - held, time);
    }

    function check_AnExpiredKeyOpensNothing(
        address caller,
        Open calldata terms,
        bytes32 r,
        bytes32 vs,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(escrow.keyOf(terms.buyer, terms.key).expiresAt <= time);
        uint256 account = escrow.accountOf(terms.buyer);
        bytes memory signature = _keysWord(caller, terms, Messages.hash(terms), r, vs);
        _by(caller, abi.encodeCall(IEscrow.openOneSession, (terms, signature)));
        assertEq(escrow.accountOf(terms.buyer), account);
    }

    function check_AnExpiredKeyTopsUpNothing(
        address caller,
        Open calldata terms,
        uint128 deposited,
        bytes32 r,
        bytes32 vs,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(escrow.keyOf(terms.buyer, terms.key).expiresAt <= time);
        uint256 account = escrow.accountOf(terms.buyer);
        bytes32 message = Messages.hash(TopUp(escrow.sessionIdOf(terms), deposited));
        bytes memory signature = _keysWord(caller, terms, message, r, vs);
        _by(caller, abi.encodeCall(IEscrow.topUp, (terms, deposited, signature)));
        assertEq(escrow.accountOf(terms.buyer), account);
    }

    function check_ARevokedKeyIsExpiredAndItsGrantsAreOld(address buyer, address key, address other) external {
        vm.assume(other != key);
        (Key memory before, Key memory others) = (escrow.keyOf(buyer, key), escrow.keyOf(buyer, other));
        vm.assume(before.nonce < type(uint64).max - 65_536); // no chain lives as long
        assertTrue(_by(buyer, abi.encodeCall(IEscrow.revokeKey, (key))));

        Key memory afterwards = escrow.keyOf(buyer, key);
        assertEq(afterwards.expiresAt, 0);
        assertGe(afterwards.nonce, uint256(before.nonce) + 65_536);
        assertTrue(_same(others, escrow.keyOf(buyer, other)));
    }

    function check_AnOldGrantChangesNothing(
        address caller,
        KeyGrant calldata grant,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        Key memory before = escrow.keyOf(grant.buyer, grant.key);
        vm.assume(grant.nonce <= before.nonce);
        assertTrue(_by(caller, abi.encodeCall(IEscrow.setKeyBySig, (grant, signature))));
        assertTrue(_same(before, escrow.keyOf(grant.buyer, grant.key)));
    }

    function check_AGrantNeedsTheBuyersWordAndSetsExactlyItsCaps(
        address caller,
        KeyGrant calldata grant,
        bytes calldata signature,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(grant.buyer.code.length == 0);
        Key memory before = escrow.keyOf(grant.buyer, grant.key);
        vm.assume(grant.nonce > before.nonce);
        if (!_by(caller, abi.encodeCall(IEscrow.setKeyBySig, (grant, signature)))) return;

        assertEq(_signerOf(Messages.hash(grant), signature), grant.buyer);
        assertLt(time, grant.validUntil);
        assertTrue(grant.key != address(0));
        KeyCaps memory caps =
            KeyCaps(grant.perSession, grant.perDay, grant.total, grant.expiresAt, grant.nodesRoot);
        _assertSet(before, escrow.keyOf(grant.buyer, grant.key), caps, grant.nonce);
    }

    function check_TheBuyerSetsExactlyTheCapsItNames(address buyer, address key, KeyCaps calldata caps) external {
        Key memory before = escrow.keyOf(buyer, key);
        if (!_by(buyer, abi.encodeCall(IEscrow.setKey, (key, caps)))) return;

        assertTrue(key != address(0));
        _assertSet(before, escrow.keyOf(buyer, key), caps, uint256(before.nonce) + 1);
    }

    function check_NobodySetsOrRevokesTheKeyOfAnother(
        address caller,
        address buyer,
        address key,
        address named,
        KeyCaps calldata caps
    ) external {
        vm.assume(caller != buyer);
        Key memory before = escrow.keyOf(buyer, key);
        _by(caller, abi.encodeCall(IEscrow.setKey, (named, caps)));
        _by(caller, abi.encodeCall(IEscrow.revokeKey, (named)));
        assertTrue(_same(before, escrow.keyOf(buyer, key)));
    }

    function check_TheBuyersOwnWordIsChargedToNoKey(address caller, Open calldata terms, bytes calldata word, uint40 at)
        external
    {
        vm.warp(at);
        vm.assume(terms.buyer != address(0));
        if (word.length == 0) vm.assume(caller == terms.buyer);
        else vm.assume(_signerOf(Messages.hash(terms), word) == terms.buyer);
        Key memory before = escrow.keyOf(terms.buyer, terms.key);
        _by(caller, abi.encodeCall(IEscrow.openOneSession, (terms, word)));
        assertTrue(_same(before, escrow.keyOf(terms.buyer, terms.key)));
    }

    function check_AListedKeyPaysOnlyNodesThatItsRootProves(
        address caller,
        Open calldata terms,
        bytes32 r,
        bytes32 vs,
        bytes32 sibling,
        bool isProven,
        uint40 time
    ) external {
        vm.warp(time);
        Key memory held = escrow.keyOf(terms.buyer, terms.key);
        vm.assume(held.isListed && _held(terms).flags == 0);
        bytes memory signature = _keysWord(caller, terms, Messages.hash(terms), r, vs);
        if (isProven) signature = abi.encodePacked(signature, sibling);
        if (!_by(caller, abi.encodeCall(IEscrow.openOneSession, (terms, signature)))) return;

        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(terms.nodeId))));
        (bytes32 low, bytes32 high) = leaf < sibling ? (leaf, sibling) : (sibling, leaf);
        assertEq(isProven ? keccak256(abi.encodePacked(low, high)) : leaf, held.nodesRoot);
    }

    /// @dev A word of the key's over the message, sent by somebody who is not the buyer.
    function _keysWord(address caller, Open calldata terms, bytes32 message, bytes32 r, bytes32 vs)
        private
        view
        returns (bytes memory word)
    {
        vm.assume(terms.buyer.code.length == 0 && terms.key != terms.buyer && caller != terms.buyer);
        word = abi.encodePacked(r, vs);
        vm.assume(this.signerOf(message, word) == terms.key);
    }

    function signerOf(bytes32 message, bytes calldata word) external view returns (address) {
        return _signerOf(message, word);
    }

    /// @dev All caps hold, and use rises by exactly what moved.
    function _assertCharged(Key memory before, Open calldata terms, uint256 moved, uint40 time) private view {
        Key memory afterwards = escrow.keyOf(terms.buyer, terms.key);
        uint256 day = time / 1 days;
        assertLt(time, before.expiresAt);
        assertEq(afterwards.spent, before.spent + moved);
        assertLe(afterwards.spent, before.total);
        assertEq(afterwards.day, uint32(day));
        assertEq(afterwards.spentToday, (before.day == uint32(day) ? before.spentToday : 0) + moved);
        assertLe(afterwards.spentToday, before.perDay);
        (afterwards.spent, afterwards.day, afterwards.spentToday) = (before.spent, before.day, before.spentToday);
        assertTrue(_same(before, afterwards));
    }

    function _assertSet(Key memory before, Key memory afterwards, KeyCaps memory caps, uint256 nonce) private pure {
        assertEq(afterwards.perSession, caps.perSession);
        assertEq(afterwards.perDay, caps.perDay);
        assertEq(afterwards.total, caps.total);
        assertEq(afterwards.expiresAt, caps.expiresAt);
        assertEq(afterwards.isListed, caps.nodesRoot != 0);
        assertEq(afterwards.nodesRoot, caps.nodesRoot);
        assertEq(afterwards.spent, 0);
        assertEq(afterwards.nonce, nonce);
        assertEq(afterwards.spentToday, before.spentToday);
        assertEq(afterwards.day, before.day);
    }

    function _same(Key memory a, Key memory b) private pure returns (bool) {
        return keccak256(abi.encode(a)) == keccak256(abi.encode(b));
    }
}
