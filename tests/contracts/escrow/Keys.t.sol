// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Key, KeyCaps} from "../../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open} from "../../../contracts/types/Messages.sol";
import {Grants} from "../support/Grants.sol";

/// @title setKey, setKeyBySig, revokeKey
contract KeysTest is Grants {
    /* SET BY THE BUYER */

    function testFuzz_SetKeyKeepsEveryCap(address who, KeyCaps memory caps) public {
        vm.assume(who != address(0));
        _narrow(caps);
        _expectSet(who, 1, caps);
        vm.prank(buyer.addr);
        escrow.setKey(who, caps);
        _requireKey(who, 1, caps);

        _expectSet(who, 2, _caps());
        vm.prank(buyer.addr);
        escrow.setKey(who, _caps());
        _requireKey(who, 2, _caps());
    }

    function test_SetKeyRefusesAKeyOfZero() public {
        vm.expectRevert(IEscrow.Escrow_ZeroKey.selector);
        vm.prank(buyer.addr);
        escrow.setKey(address(0), _caps());
        KeyGrant memory grant = _grant(1);
        grant.key = address(0);
        bytes memory signature = _signGrant(buyer, grant);
        vm.expectRevert(IEscrow.Escrow_ZeroKey.selector);
        escrow.setKeyBySig(grant, signature);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SetKeyRefusesAmountsThatDoNotFitTheSlot(uint8 field, uint128 amount) public {
        uint128 limit = type(uint64).max;
        amount = uint128(bound(amount, limit + 1, type(uint128).max));
        KeyCaps memory caps = _caps();
        if (field % 3 == 0) caps.perSession = amount;
        if (field % 3 == 1) caps.perDay = amount;
        if (field % 3 == 2) caps.total = amount;
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AmountTooLarge.selector, amount, limit));
        _setKey(caps);
    }

    function test_SetKeyIsForTheCallersAccountOnly() public {
        vm.prank(stranger);
        escrow.setKey(key.addr, _caps());
        assertEq(escrow.keyOf(buyer.addr, key.addr).expiresAt, 0);
        _refuseByKey(1, 10, abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START, 0));
    }

    function test_SetKeyAgainStartsTheTotalAnewButNotTheDay() public {
        _setKey(_caps());
        _openByKey(1, 100);
        _setKey(_caps());
        (uint64 today, uint64 total) = _spent();
        assertEq(today, 100);
        assertEq(total, 0);
        _refuseByKey(2, 51, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
        _openByKey(2, 50);
    }

    /* SET BY SIGNATURE */

    function testFuzz_SetKeyBySigDoesWhatSetKeyDoes(address sender, KeyCaps memory caps, uint32 nonce) public {
        _narrow(caps);
        nonce = uint32(bound(nonce, 1, type(uint32).max));
        KeyGrant memory grant = _grant(nonce);
        (grant.perSession, grant.perDay, grant.total) = (caps.perSession, caps.perDay, caps.total);
        (grant.expiresAt, grant.nodesRoot) = (caps.expiresAt, caps.nodesRoot);
        bytes memory signature = _signGrant(buyer, grant);
        _expectSet(key.addr, nonce, caps);
        vm.prank(sender);
        escrow.setKeyBySig(grant, signature);
        _requireKey(key.addr, nonce, caps);
    }

    function test_SetKeyBySigReplayIsANoOp() public {
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(buyer, grant);
        escrow.setKeyBySig(grant, signature);
        _openByKey(1, 30);
        vm.recordLogs();
        escrow.setKeyBySig(grant, signature);
        vm.warp(grant.validUntil);
        escrow.setKeyBySig(grant, "");
        assertEq(vm.getRecordedLogs().length, 0);
        (, uint64 total) = _spent();
        assertEq(total, 30);
    }

    function test_SetKeyBySigTakesOnlyRisingNonces() public {
        KeyGrant memory grant = _grant(7);
        escrow.setKeyBySig(grant, _signGrant(buyer, grant));
        grant = _grant(6);
        grant.total = 1;
        escrow.setKeyBySig(grant, _signGrant(buyer, grant));
        assertEq(escrow.keyOf(buyer.addr, key.addr).total, TOTAL);
        grant.nonce = 8;
        escrow.setKeyBySig(grant, _signGrant(buyer, grant));
        assertEq(escrow.keyOf(buyer.addr, key.addr).total, 1);
        assertEq(escrow.keyOf(buyer.addr, key.addr).nonce, 8);
    }

    function test_SetKeyBySigAfterSetKeyNeedsAHigherNonce() public {
        _setKey(_caps());
        KeyGrant memory grant = _grant(1);
        grant.total = 1;
        escrow.setKeyBySig(grant, _signGrant(buyer, grant));
        assertEq(escrow.keyOf(buyer.addr, key.addr).total, TOTAL);
    }

    function test_SetKeyBySigValidUntilIsExclusive() public {
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(buyer, grant);
        vm.warp(grant.validUntil);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_GrantTooLate.selector, grant.validUntil, grant.validUntil)
        );
        escrow.setKeyBySig(grant, signature);
        vm.warp(grant.validUntil - 1);
        escrow.setKeyBySig(grant, signature);
        assertEq(escrow.keyOf(buyer.addr, key.addr).nonce, 1);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SetKeyBySigRefusesEverySignerButTheBuyer(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != buyer.addr);
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(other, grant);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, other.addr, buyer.addr));
        escrow.setKeyBySig(grant, signature);
    }

    function test_SetKeyBySigRefusesTheKeyItselfAndTheEmptySignature() public {
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(key, grant);
        vm.startPrank(key.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, key.addr, buyer.addr));
        escrow.setKeyBySig(grant, signature);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), buyer.addr));
        escrow.setKeyBySig(grant, "");
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SetKeyBySigRefusesATamperedGrant(uint8 field, uint32 change) public {
        change = uint32(bound(change, 1, 1 << 30));
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(buyer, grant);
        field = field % 8;
        if (field == 0) grant.key = address(uint160(grant.key) ^ change);
        if (field == 1) grant.perSession += change;
        if (field == 2) grant.perDay += change;
        if (field == 3) grant.total += change;
        if (field == 4) grant.expiresAt += change;
        if (field == 5) grant.nodesRoot = bytes32(uint256(change));
        if (field == 6) grant.nonce += change;
        if (field == 7) grant.validUntil += change;
        vm.expectPartialRevert(IEscrow.Escrow_WrongSigner.selector);
        escrow.setKeyBySig(grant, signature);
    }

    function test_SetKeyBySigTakesTheShortFormAndRefusesAHighS() public {
        KeyGrant memory grant = _grant(1);
        bytes memory high = _signHigh(buyer, Messages.hash(grant));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), buyer.addr));
        escrow.setKeyBySig(grant, high);
        escrow.setKeyBySig(grant, _signShort(buyer, Messages.hash(grant)));
        assertEq(escrow.keyOf(buyer.addr, key.addr).nonce, 1);
    }

    function test_SetKeyBySigRefusesAGrantForAnotherChain() public {
        KeyGrant memory grant = _grant(1);
        bytes memory signature = _signGrant(buyer, grant);
        vm.chainId(1);
        vm.expectPartialRevert(IEscrow.Escrow_WrongSigner.selector);
        escrow.setKeyBySig(grant, signature);
    }

    /* REVOKED */

    function test_RevokeKeyStopsTheKeyAtOnce() public {
        _setKey(_caps());
        Open memory terms = _openByKey(1, 10);
        bytes memory more = _signTopUp(key, escrow.sessionIdOf(terms), 20);
        vm.expectEmit(address(escrow));
        emit IEscrow.KeyRevoked(buyer.addr, key.addr, 1 + STEP);
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        bytes memory reason = abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START, 0);
        _refuseByKey(2, 1, reason);
        vm.expectRevert(reason);
        escrow.topUp(terms, 20, more);
        assertEq(escrow.keyOf(buyer.addr, key.addr).expiresAt, 0);
    }

    function test_RevokeKeyLeavesItsSessionsOpen() public {
        _setKey(_caps());
        bytes32 sessionId = escrow.sessionIdOf(_openByKey(1, 10));
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        _settleOne(sessionId, 1, 4);
        assertEq(_held(sessionId).paid, 4);
    }

    function test_RevokeKeyVoidsGrantsThatWereSignedAhead() public {
        KeyGrant memory old = _grant(1);
        escrow.setKeyBySig(old, _signGrant(buyer, old));
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        escrow.setKeyBySig(old, _signGrant(buyer, old));
        KeyGrant memory ahead = _grant(1 + STEP);
        escrow.setKeyBySig(ahead, _signGrant(buyer, ahead));
        assertEq(escrow.keyOf(buyer.addr, key.addr).expiresAt, 0);
        KeyGrant memory fresh = _grant(2 + STEP);
        escrow.setKeyBySig(fresh, _signGrant(buyer, fresh));
        assertEq(escrow.keyOf(buyer.addr, key.addr).expiresAt, KEY_END);
    }

    function test_RevokeKeyOfAKeyThatWasNeverSetVoidsItsGrantsToo() public {
        vm.expectEmit(address(escrow));
        emit IEscrow.KeyRevoked(buyer.addr, key.addr, STEP);
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        KeyGrant memory grant = _grant(1);
        escrow.setKeyBySig(grant, _signGrant(buyer, grant));
        assertEq(escrow.keyOf(buyer.addr, key.addr).expiresAt, 0);
    }

    function test_RevokeKeyIsUndoneByTheBuyerOnly() public {
        _setKey(_caps());
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        vm.prank(key.addr);
        escrow.setKey(key.addr, _caps());
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START, 0));
        _setKey(_caps());
        _openByKey(1, 1);
        assertEq(escrow.keyOf(buyer.addr, key.addr).nonce, 2 + STEP);
    }

    function test_RevokeKeyDoesNotForgetTheDay() public {
        _setKey(_caps());
        _openByKey(1, 100);
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        _setKey(_caps());
        _refuseByKey(2, 51, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
    }

    function test_RevokeKeyIsForTheCallersAccountOnly() public {
        _setKey(_caps());
        vm.prank(stranger);
        escrow.revokeKey(key.addr);
        _openByKey(1, 10);
    }

    /* HELPERS */

    function _expectSet(address who, uint32 nonce, KeyCaps memory caps) private {
        vm.expectEmit(address(escrow));
        emit IEscrow.KeySet(
            buyer.addr, who, nonce, caps.perSession, caps.perDay, caps.total, caps.expiresAt, caps.nodesRoot
        );
    }

    function _requireKey(address who, uint32 nonce, KeyCaps memory caps) private view {
        Key memory expected = Key({
            perSession: uint64(caps.perSession),
            perDay: uint64(caps.perDay),
            total: uint64(caps.total),
            expiresAt: caps.expiresAt,
            isListed: caps.nodesRoot != 0,
            spentToday: 0,
            spent: 0,
            day: 0,
            nonce: nonce,
            nodesRoot: caps.nodesRoot
        });
        assertEq(abi.encode(escrow.keyOf(buyer.addr, who)), abi.encode(expected));
    }

    function _narrow(KeyCaps memory caps) private pure {
        caps.perSession = uint64(caps.perSession);
        caps.perDay = uint64(caps.perDay);
        caps.total = uint64(caps.total);
    }
}
