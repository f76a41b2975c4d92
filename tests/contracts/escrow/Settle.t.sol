// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Messages, Open, Voucher} from "../../../contracts/types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

contract SettleTest is Fixture {
    bytes32 private _id;
    Open private _opened;

    function setUp() public override {
        super.setUp();
        (_opened, _id) = _session(1000);
    }

    function testFuzz_SettlePaysTheIncreaseOfEachVoucher(uint128 first, uint128 second, uint32 seq, uint32 end) public {
        first = uint128(bound(first, 0, 999));
        second = uint128(bound(second, first + 1, 1000));
        seq = uint32(bound(seq, 1, type(uint32).max));
        end = uint32(bound(end, seq, type(uint32).max));
        _settleOne(_id, seq, first);
        assertEq(_earnings(nodeId), first);
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSettled(_id, end, second, ROOT);
        _settleOne(_id, end, second);

        Session memory held = _held(_id);
        assertEq(held.paid, second);
        assertEq(held.throughSeq, end);
        assertEq(held.deposited, 1000);
        assertEq(held.nodeId, nodeId);
        assertEq(held.expiresAt, _opened.expiresAt);
        assertEq(held.keyEpoch, 1);
        assertEq(held.flags, 1);
        assertEq(_earnings(nodeId), second);
    }

    function testFuzz_SettleNeverLetsPaidOrSeqFall(uint32 seqA, uint128 amountA, uint32 seqB, uint128 amountB) public {
        amountA = uint128(bound(amountA, 0, 1000));
        amountB = uint128(bound(amountB, 0, 1000));
        seqA = uint32(bound(seqA, 1, type(uint32).max));
        _settleOne(_id, seqA, amountA);
        bool rises = amountB >= amountA && seqB >= seqA && (amountB > amountA || seqB > seqA);
        if (!rises) _expectSkip(_id, SettleStatus.Stale);
        _settleOne(_id, seqB, amountB);
        assertEq(_held(_id).paid, rises ? amountB : amountA);
        assertEq(_held(_id).throughSeq, rises ? seqB : seqA);
        assertEq(_earnings(nodeId), rises ? amountB : amountA);
    }

    function testFuzz_SettleSkipsMoreThanIsDeposited(uint128 amount) public {
        amount = uint128(bound(amount, 1001, type(uint128).max));
        _expectSkip(_id, SettleStatus.AboveDeposit);
        _settleOne(_id, 1, amount);
        assertEq(_held(_id).paid, 0);
        assertEq(_earnings(nodeId), 0);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SettleSkipsItemSignedByWrongKey(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != key.addr);
        SettleItem memory item = _item(other, _id, 1, 10);
        _expectSkip(_id, SettleStatus.UnknownSession);
        _settleOne(item);
        assertEq(_held(_id).paid, 0);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SettleSkipsEveryCallerButTheSettler(address caller) public {
        vm.assume(caller != settler);
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _item(key, _id, 1, 10);
        _expectSkip(_id, SettleStatus.NotSettler);
        vm.prank(caller);
        escrow.settle(items);
        assertEq(_held(_id).paid, 0);
    }

    function testFuzz_SettleSkipsATamperedItem(uint8 field, uint256 change) public {
        SettleItem memory item = _item(key, _id, 5, 100);
        change = bound(change, 1, 2 ** 30);
        field = uint8(bound(field, 0, 3));
        if (field == 0) item.throughSeq += uint32(change);
        if (field == 1) item.amount += uint128(change);
        if (field == 2) item.receiptsRoot = bytes32(uint256(item.receiptsRoot) ^ change);
        if (field == 3) item.r = bytes32(uint256(item.r) ^ change);
        _expectSkip(_id, SettleStatus.UnknownSession);
        _settleOne(item);
        assertEq(_held(_id).paid, 0);
    }

    function test_SettleSkipsAHighS() public {
        SettleItem memory item = _item(key, _id, 1, 10);
        bytes memory high = _signHigh(key, Messages.hash(Voucher(_id, 1, 10, ROOT)));
        (bytes32 r, bytes32 s) = abi.decode(high, (bytes32, bytes32));
        (item.r, item.vs) = (r, uint8(high[64]) == 28 ? bytes32(uint256(s) | (1 << 255)) : s);
        _expectSkip(_id, SettleStatus.UnknownSession);
        _settleOne(item);
    }

    function test_SettleReplayIsSkippedAsStale() public {
        SettleItem memory item = _item(key, _id, 3, 300);
        _settleOne(item);
        _expectSkip(_id, SettleStatus.Stale);
        _settleOne(item);
        assertEq(_earnings(nodeId), 300);
    }

    function test_SettleTheSameItemTwiceInOneCallPaysOnce() public {
        SettleItem[] memory items = new SettleItem[](2);
        (items[0], items[1]) = (_item(key, _id, 3, 300), _item(key, _id, 3, 300));
        _expectSkip(_id, SettleStatus.Stale);
        vm.prank(settler);
        escrow.settle(items);
        assertEq(_earnings(nodeId), 300);
    }

    function test_SettleTakesAHigherSeqAtTheSameAmount() public {
        _settleOne(_id, 3, 300);
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSettled(_id, 9, 300, ROOT);
        _settleOne(_id, 9, 300);
        assertEq(_held(_id).throughSeq, 9);
        assertEq(_earnings(nodeId), 300);
    }

    function test_SettleSkipsASessionThatWasNeverOpened() public {
        bytes32 unknown = keccak256("unknown");
        _expectSkip(unknown, SettleStatus.UnknownSession);
        _settleOne(unknown, 1, 10);
    }

    function test_SettleEndsWithGraceToTheSecond() public {
        uint256 end = _opened.expiresAt + GRACE;
        vm.warp(end - 1);
        _settleOne(_id, 1, 10);
        assertEq(_held(_id).paid, 10);
        vm.warp(end);
        _expectSkip(_id, SettleStatus.Expired);
        _settleOne(_id, 2, 20);
        assertEq(_held(_id).paid, 10);
    }

    function test_SettleSkipsAClosedSession() public {
        escrow.close(_opened, 0, _signClose(nodeKey, _id, 0));
        _expectSkip(_id, SettleStatus.Closed);
        _settleOne(_id, 1, 10);
        assertEq(_earnings(nodeId), 0);
    }

    function test_SettleFollowsANewSettlerAtOnce() public {
        vm.prank(provider);
        registry.setSettler(nodeId, stranger);
        _expectSkip(_id, SettleStatus.NotSettler);
        _settleOne(_id, 1, 10);
        settler = stranger;
        _settleOne(_id, 1, 10);
        assertEq(_earnings(nodeId), 10);
    }

    function test_SettleOldEpochSessionStillPaysAfterKeyRotation() public {
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, stranger, 0);
        _settleOne(_id, 1, 10);
        assertEq(_earnings(nodeId), 10);
    }

    function test_SettleSkipsVouchersOfAnotherChain() public {
        SettleItem memory item = _item(key, _id, 1, 10);
        vm.chainId(1);
        _expectSkip(_id, SettleStatus.UnknownSession);
        _settleOne(item);
    }

    /// @dev A number that overflows its field is a message nobody can have signed, not a reason to revert the others.
    function test_SettleSkipsNumbersThatOverflowTheirField() public {
        SettleItem[] memory items = new SettleItem[](3);
        for (uint256 i = 0; i < 3; ++i) {
            items[i] = _item(key, _id, uint32(i + 1), uint128(i + 1));
        }
        bytes memory data = abi.encodeCall(IEscrow.settle, (items));
        data[4 + 64 + 32 + 27] = 0x01; // first item: bit 32 of throughSeq
        data[4 + 64 + 192 + 64 + 15] = 0x01; // second item: bit 128 of amount
        _expectSkip(_id, SettleStatus.UnknownSession);
        _expectSkip(_id, SettleStatus.UnknownSession);
        vm.prank(settler);
        (bool ok,) = address(escrow).call(data);
        assertTrue(ok);
        assertEq(_held(_id).paid, 3);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SettleBadItemsNeverTouchTheGood(uint256 badMask) public {
        Actor memory other = _actor("other key");
        uint32 otherNode = _secondNode();
        SettleItem[] memory items = new SettleItem[](8);
        uint256 expected = 0;
        for (uint256 i = 0; i < 8; ++i) {
            bool bad = badMask & (1 << i) != 0;
            Open memory terms = _terms(100);
            (terms.salt, terms.nodeId) = (bytes32(i + 2), i % 3 == 0 ? otherNode : nodeId);
            _deposit(100);
            bytes32 sessionId = _openOne(terms);
            items[i] = _item(bad ? other : key, sessionId, 1, uint128(i + 1));
            if (!bad && terms.nodeId == nodeId) expected += i + 1;
        }
        vm.prank(settler);
        escrow.settle(items);
        assertEq(_earnings(nodeId), expected);
        assertEq(_earnings(otherNode), 0);
    }

    function test_SettleForTwoNodesOfOneSettlerInOneCall() public {
        vm.prank(provider);
        uint32 second = registry.addNode(nodeKey.addr, 0, settler, "");
        Open memory terms = _terms(50);
        (terms.salt, terms.nodeId) = (bytes32(uint256(7)), second);
        _deposit(50);
        bytes32 other = _openOne(terms);
        SettleItem[] memory items = new SettleItem[](3);
        items[0] = _item(key, _id, 1, 10);
        items[1] = _item(key, other, 1, 20);
        items[2] = _item(key, _id, 2, 15);
        vm.prank(settler);
        escrow.settle(items);
        assertEq(_earnings(nodeId), 15);
        assertEq(_earnings(second), 20);
    }

    function test_SettleNothingIsANoOp() public {
        vm.recordLogs();
        escrow.settle(new SettleItem[](0));
        assertEq(vm.getRecordedLogs().length, 0);
    }

    /// @dev As a batch does; the event repeats the id as the key signed it.
    function test_SettleFindsASessionByTheFirst24BytesOfItsId() public {
        bytes32 other = bytes32(uint256(_id) ^ 1);
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSettled(other, 1, 10, ROOT);
        _settleOne(other, 1, 10);
        assertEq(_held(_id).paid, 10);
        other = bytes32(uint256(_id) ^ (1 << 64));
        _expectSkip(other, SettleStatus.UnknownSession);
        _settleOne(other, 2, 20);
    }

    function _secondNode() private returns (uint32) {
        address owner = makeAddr("second provider");
        _fund(owner);
        return _serve(owner, nodeKey.addr, stranger);
    }
}
