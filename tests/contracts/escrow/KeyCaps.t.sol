// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Key, KeyCaps} from "../../../contracts/types/Keys.sol";
import {Messages, Open} from "../../../contracts/types/Messages.sol";
import {Grants} from "../support/Grants.sol";

/// @title What a key may move, to the atom and to the second
contract KeyCapsTest is Grants {
    /// @dev First second of the day after START.
    uint48 private constant _MIDNIGHT = (START / 1 days + 1) * 1 days;

    /* AMOUNTS */

    function test_SessionCapHoldsToTheAtom() public {
        _setKey(_caps());
        _refuseByKey(1, 101, abi.encodeWithSelector(IEscrow.Escrow_AboveSessionCap.selector, 101, PER_SESSION));
        _openByKey(1, 100);
    }

    function test_SessionCapIsOnWhatTheSessionHoldsAfterATopUp() public {
        _setKey(_caps());
        Open memory terms = _openByKey(1, 60);
        bytes memory signature = _signTopUp(key, escrow.sessionIdOf(terms), 101);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveSessionCap.selector, 101, PER_SESSION));
        escrow.topUp(terms, 101, signature);
        escrow.topUp(terms, 100, _signTopUp(key, escrow.sessionIdOf(terms), 100));
        (uint64 today, uint64 total) = _spent();
        assertEq(today, 100);
        assertEq(total, 100);
    }

    function test_DayCapHoldsToTheAtom() public {
        _setKey(_caps());
        _openByKey(1, 100);
        _refuseByKey(2, 51, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
        _openByKey(2, 50);
        _refuseByKey(3, 1, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
    }

    function test_DayCapStartsAnewAtMidnightToTheSecond() public {
        _setKey(_caps());
        _openByKey(1, 100);
        vm.warp(_MIDNIGHT - 1);
        _refuseByKey(2, 51, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
        vm.warp(_MIDNIGHT);
        _openByKey(2, 100);
        Key memory held = escrow.keyOf(buyer.addr, key.addr);
        assertEq(held.spentToday, 100);
        assertEq(held.spent, 200);
        assertEq(held.day, _MIDNIGHT / 1 days);
    }

    function test_TotalCapHoldsToTheAtom() public {
        _setKey(_caps());
        for (uint256 day = 0; day < 4; ++day) {
            vm.warp(START + day * 1 days);
            _openByKey(day, day == 3 ? 99 : 100);
        }
        _refuseByKey(9, 2, abi.encodeWithSelector(IEscrow.Escrow_AboveTotalCap.selector, 401, TOTAL));
        _openByKey(9, 1);
        vm.warp(START + 4 days);
        _refuseByKey(10, 1, abi.encodeWithSelector(IEscrow.Escrow_AboveTotalCap.selector, 401, TOTAL));
    }

    function test_CapsOfZeroAllowNothing() public {
        _setKey(KeyCaps(0, 0, 0, KEY_END, 0));
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_AboveSessionCap.selector, 1, 0));
        _setKey(KeyCaps(1, 0, 1, KEY_END, 0));
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 1, 0));
        _setKey(KeyCaps(1, 1, 0, KEY_END, 0));
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_AboveTotalCap.selector, 1, 0));
    }

    function test_WhatReturnsRestoresNoCap() public {
        _setKey(_caps());
        Open memory terms = _openByKey(1, 100);
        escrow.close(terms, 0, _signClose(nodeKey, escrow.sessionIdOf(terms), 0));
        _refuseByKey(2, 51, abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
    }

    function test_WhatTheBuyerOpensItselfCountsForNoCap() public {
        _setKey(_caps());
        Open memory terms = _salted(1, 1000);
        escrow.openOneSession(terms, _signOpen(buyer, terms));
        vm.prank(buyer.addr);
        escrow.topUp(terms, 1500, "");
        (uint64 today, uint64 total) = _spent();
        assertEq(today, 0);
        assertEq(total, 0);
    }

    function test_RefusedOpenUsesNoCapUp() public {
        _setKey(_caps());
        vm.prank(buyer.addr);
        escrow.withdraw(9990, buyer.addr);
        _refuseByKey(1, 11, abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, 11, 10));
        (uint64 today, uint64 total) = _spent();
        assertEq(today, 0);
        assertEq(total, 0);
    }

    function testFuzz_KeyNeverMovesMoreThanAnyCap(
        KeyCaps memory caps,
        uint8[12] memory amounts,
        uint32[12] memory waits
    ) public {
        (caps.perSession, caps.perDay) = (caps.perSession % 300, caps.perDay % 600);
        (caps.total, caps.expiresAt, caps.nodesRoot) = (caps.total % 2000, KEY_END, 0);
        _setKey(caps);
        uint256 moved = 0;
        uint256 today = 0;
        for (uint256 i = 0; i < 12; ++i) {
            uint256 day = vm.getBlockTimestamp() / 1 days;
            vm.warp(vm.getBlockTimestamp() + waits[i] % 1 days);
            if (vm.getBlockTimestamp() / 1 days != day) today = 0;
            uint256 before = escrow.accountOf(buyer.addr);
            uint128 amount = uint128(amounts[i]) + 1;
            bool fits = amount <= caps.perSession && today + amount <= caps.perDay && moved + amount <= caps.total;
            Open memory terms = _salted(i, amount);
            bytes memory signature = _signOpen(key, terms);
            if (!fits) vm.expectRevert();
            escrow.openOneSession(terms, signature);
            uint256 gone = before - escrow.accountOf(buyer.addr);
            assertEq(gone, fits ? amount : 0);
            (today, moved) = (today + gone, moved + gone);
        }
    }

    /* TIME */

    function test_KeyEndsAtExpiresAtToTheSecond() public {
        KeyCaps memory caps = _caps();
        caps.expiresAt = START + 100;
        _setKey(caps);
        vm.warp(START + 100);
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START + 100, START + 100));
        vm.warp(START + 99);
        _openByKey(1, 1);
    }

    function test_KeyThatWasNeverSetMovesNothing() public {
        _refuseByKey(1, 1, abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START, 0));
    }

    function test_KeyOfOneBuyerMovesNothingOfAnother() public {
        _setKey(_caps());
        _fund(stranger);
        vm.prank(stranger);
        escrow.deposit(100);
        Open memory terms = _terms(10);
        terms.buyer = stranger;
        bytes memory signature = _signOpen(key, terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, START, 0));
        escrow.openOneSession(terms, signature);
    }

    function test_KeyOpensOnlySessionsOfItsOwn() public {
        _setKey(_caps());
        Open memory terms = _terms(10);
        terms.key = stranger;
        bytes memory signature = _signOpen(key, terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, key.addr, buyer.addr));
        escrow.openOneSession(terms, signature);
    }

    /* WHO SENDS */

    function test_KeyThatSendsNeedsNoSignatureAndIsCharged() public {
        _setKey(_caps());
        Open memory terms = _salted(1, 60);
        vm.startPrank(key.addr);
        escrow.openOneSession(terms, "");
        escrow.topUp(terms, 80, "");
        (uint64 today,) = _spent();
        assertEq(today, 80);
        Open memory second = _salted(2, 71);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveDayCap.selector, 151, PER_DAY));
        escrow.openOneSession(second, "");
    }

    function test_WordOfAKeyIsChargedAlsoWhenTheBuyerHandsItIn() public {
        _setKey(_caps());
        Open memory terms = _openByKey(1, 60);
        bytes memory signature = _signTopUp(key, escrow.sessionIdOf(terms), 100);
        vm.prank(buyer.addr);
        escrow.topUp(terms, 100, signature);
        (, uint64 total) = _spent();
        assertEq(total, 100);
    }

    function test_KeyThatIsTheBuyerHasNoCaps() public {
        Open memory terms = _terms(1000);
        terms.key = buyer.addr;
        escrow.openOneSession(terms, _signOpen(buyer, terms));
        vm.prank(buyer.addr);
        escrow.topUp(terms, 2000, "");
        assertEq(escrow.accountOf(buyer.addr), 8000);
        assertEq(escrow.keyOf(buyer.addr, buyer.addr).spent, 0);
    }

    /* NODES */

    function test_ListedNodeNeedsItsProof() public {
        _list(_rootOf(nodeId, 77));
        Open memory terms = _terms(10);
        bytes memory bare = _signOpen(key, terms);
        _refuseNode(terms, bare); // missing
        _refuseNode(terms, bytes.concat(bare, _leaf(78))); // wrong
        _refuseNode(terms, bytes.concat(bare, _leaf(77), bytes32(0))); // surplus
        escrow.openOneSession(terms, bytes.concat(bare, _leaf(77)));
        bytes memory more = _signTopUp(key, escrow.sessionIdOf(terms), 20);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NodeNotAllowed.selector, nodeId));
        escrow.topUp(terms, 20, more);
        escrow.topUp(terms, 20, bytes.concat(more, _leaf(77)));
    }

    function test_ListedNodeTakesTheShortSignatureFormToo() public {
        _list(_rootOf(nodeId, 77));
        Open memory terms = _terms(10);
        bytes memory short = _signShort(key, Messages.hash(terms));
        _refuseNode(terms, short);
        escrow.openOneSession(terms, bytes.concat(short, _leaf(77)));
    }

    function test_NodeThatIsNotListedIsRefusedWithAnyProof() public {
        _list(_rootOf(77, 78));
        Open memory terms = _terms(10);
        bytes memory bare = _signOpen(key, terms);
        _refuseNode(terms, bytes.concat(bare, _leaf(77)));
        _refuseNode(terms, bytes.concat(bare, _leaf(78)));
        _refuseNode(terms, bare);
    }

    function test_ListOfOneNodeHasAnEmptyProof() public {
        _list(_leaf(nodeId));
        Open memory terms = _terms(10);
        vm.prank(key.addr);
        escrow.openOneSession(terms, "");
        _openByKey(2, 10);
    }

    function test_KeyThatSendsStillProvesItsNode() public {
        _list(_rootOf(nodeId, 77));
        Open memory terms = _terms(10);
        bytes memory signature = bytes.concat(_signOpen(key, terms), _leaf(77));
        vm.startPrank(key.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NodeNotAllowed.selector, nodeId));
        escrow.openOneSession(terms, "");
        escrow.openOneSession(terms, signature);
    }

    function test_ListDoesNotBindTheBuyer() public {
        _list(_leaf(77));
        Open memory terms = _terms(10);
        escrow.openOneSession(terms, _signOpen(buyer, terms));
        assertEq(escrow.accountOf(buyer.addr), 9990);
    }

    function test_GrantWithoutAListLiftsTheOldList() public {
        _list(_leaf(77));
        _refuseByKey(1, 10, abi.encodeWithSelector(IEscrow.Escrow_NodeNotAllowed.selector, nodeId));
        _setKey(_caps());
        _openByKey(1, 10);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_ListedNodeIsProvenInListsOfAnyDepth(bytes32[6] memory siblings, uint8 depth, uint8 broken)
        public
    {
        bytes32 root = _leaf(nodeId);
        depth = uint8(bound(depth, 1, 6));
        bytes memory proof;
        for (uint256 i = 0; i < depth; ++i) {
            root = Hashes.commutativeKeccak256(root, siblings[i]);
            proof = bytes.concat(proof, siblings[i]);
        }
        _list(root);
        Open memory terms = _terms(10);
        bytes memory good = bytes.concat(_signOpen(key, terms), proof);
        bytes memory bad = bytes.concat(good);
        bad[65 + broken % proof.length] ^= 0x01;
        _refuseNode(terms, bad);
        escrow.openOneSession(terms, good);
    }

    function _list(bytes32 root) private {
        KeyCaps memory caps = _caps();
        caps.nodesRoot = root;
        _setKey(caps);
    }

    function _refuseNode(Open memory terms, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NodeNotAllowed.selector, nodeId));
        escrow.openOneSession(terms, signature);
    }
}
