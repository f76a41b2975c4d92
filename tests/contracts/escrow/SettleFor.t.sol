// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Messages, Settlement} from "../../../contracts/types/Messages.sol";
import {SettleItem, SettleStatus} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

contract SettleForTest is Fixture {
    Actor private _settler = _actor("signing settler");
    bytes32 private _id;

    function setUp() public override {
        super.setUp();
        vm.prank(provider);
        registry.setSettler(nodeId, _settler.addr);
        (, _id) = _session(1000);
    }

    function testFuzz_SettleForPaysWhoeverSends(address sender, uint128 amount, uint32 seq) public {
        amount = uint128(bound(amount, 1, 1000));
        SettleItem[] memory items = _items(seq, amount);
        bytes memory signature = _signItems(_settler, items);
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSettled(_id, seq, amount, ROOT);
        vm.prank(sender);
        escrow.settleFor(items, signature);
        assertEq(_held(_id).paid, amount);
        assertEq(_held(_id).throughSeq, seq);
        assertEq(_earnings(nodeId), amount);
    }

    function test_SettleForTakesTheShortSignatureForm() public {
        SettleItem[] memory items = _items(1, 10);
        escrow.settleFor(items, _signShort(_settler, _hashOf(items)));
        assertEq(_earnings(nodeId), 10);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SettleForSkipsWhatSomebodyElseSigned(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != _settler.addr);
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(other, items);
        _expectSkip(_id, SettleStatus.NotSettler);
        escrow.settleFor(items, signature);
        assertEq(_earnings(nodeId), 0);
    }

    function test_SettleForDoesNotCountTheSender() public {
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(buyer, items);
        _expectSkip(_id, SettleStatus.NotSettler);
        vm.prank(_settler.addr);
        escrow.settleFor(items, signature);
        assertEq(_earnings(nodeId), 0);
    }

    function test_SettleForSettlesNothingWhenNobodySigned() public {
        SettleItem[] memory items = _items(1, 10);
        bytes[3] memory signatures =
            [_signHigh(_settler, _hashOf(items)), bytes(""), bytes.concat(_signItems(_settler, items), bytes1(0))];
        for (uint256 i = 0; i < 3; ++i) {
            _expectSkip(items[0].sessionId, SettleStatus.NotSettler);
            escrow.settleFor(items, signatures[i]);
        }
        assertEq(_earnings(nodeId), 0);
    }

    function testFuzz_SettleForSkipsItemsThatWereNotSigned(uint8 field, uint32 change) public {
        change = uint32(bound(change, 1, 1 << 30));
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(_settler, items);
        if (field % 3 == 0) items[0] = _item(key, _id, 1 + change, 10);
        if (field % 3 == 1) items[0] = _item(key, _id, 1, 11);
        if (field % 3 == 2) items[0].receiptsRoot = bytes32(uint256(change));
        escrow.settleFor(items, signature);
        assertEq(_earnings(nodeId), 0);
    }

    function test_SettleForSkipsAListThatLostOrGainedAnItem() public {
        SettleItem[] memory items = new SettleItem[](2);
        (items[0], items[1]) = (_item(key, _id, 1, 10), _item(key, _id, 2, 20));
        bytes memory ofTwo = _signItems(_settler, items);
        bytes memory ofOne = _signItems(_settler, _items(1, 10));
        escrow.settleFor(items, ofOne);
        escrow.settleFor(_items(1, 10), ofTwo);
        assertEq(_earnings(nodeId), 0);
        escrow.settleFor(items, ofTwo);
        assertEq(_earnings(nodeId), 20);
    }

    function test_SettleForReplayIsStale() public {
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(_settler, items);
        escrow.settleFor(items, signature);
        _expectSkip(_id, SettleStatus.Stale);
        escrow.settleFor(items, signature);
        assertEq(_earnings(nodeId), 10);
    }

    function test_SettleForSkipsASettlerWhoWasReplaced() public {
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(_settler, items);
        vm.prank(provider);
        registry.setSettler(nodeId, stranger);
        _expectSkip(_id, SettleStatus.NotSettler);
        escrow.settleFor(items, signature);
    }

    function test_SettleForSkipsASignatureForAnotherChain() public {
        SettleItem[] memory items = _items(1, 10);
        bytes memory signature = _signItems(_settler, items);
        vm.chainId(1);
        _expectSkip(_id, SettleStatus.UnknownSession);
        escrow.settleFor(items, signature);
        assertEq(_earnings(nodeId), 0);
    }

    function test_SettleForNothingIsANoOp() public {
        SettleItem[] memory none = new SettleItem[](0);
        bytes memory signature = _signItems(_settler, none);
        vm.recordLogs();
        escrow.settleFor(none, signature);
        assertEq(vm.getRecordedLogs().length, 0);
    }

    function _items(uint32 seq, uint128 amount) private view returns (SettleItem[] memory items) {
        items = new SettleItem[](1);
        items[0] = _item(key, _id, seq, amount);
    }

    function _signItems(Actor memory signer, SettleItem[] memory items) private view returns (bytes memory) {
        return _sign(signer, _hashOf(items));
    }

    function _hashOf(SettleItem[] memory items) private pure returns (bytes32) {
        return Messages.hash(Settlement(keccak256(abi.encode(items))));
    }
}
