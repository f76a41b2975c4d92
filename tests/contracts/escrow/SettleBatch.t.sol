// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Messages, Open, VoucherBatch} from "../../../contracts/types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

contract SettleBatchTest is Fixture {

    uint256 private constant _COUNT = 5;
    uint64 private constant _HELD = 100;

    uint32 private _secondNode;
    uint32 private _foreignNode;
    Open[] private _opened;
    bytes32[] private _ids;
    bytes private _batch;
    bytes private _settled;

    /// @dev Sessions 0 to 4 of 100 atoms: nodes one, one, two, one, two; session 5 is of a node with another settler.
    function setUp() public override {
        super.setUp();
        vm.prank(provider);
        _secondNode = registry.addNode(nodeKey.addr, 0, settler, "");
        address other = makeAddr("other provider");
        _fund(other);
        _foreignNode = _serve(other, nodeKey.addr, stranger);
        _deposit(1000);
        uint32[6] memory nodes = [nodeId, nodeId, _secondNode, nodeId, _secondNode, _foreignNode];
        for (uint256 i = 0; i < nodes.length; ++i) {
            Open memory terms = _terms(_HELD);
            (terms.salt, terms.nodeId) = (bytes32(i), nodes[i]);
            _ids.push(_openOne(terms));
            _opened.push(terms);
        }
    }

    /* GOOD ORDER */

    function test_BatchOfOneNodeSettlesInOneEvent() public {
        _add(0, 1, 10);
        _add(1, 7, 20);
        _add(3, 4_000_000_000, 100);
        _expectSettled(_batch);
        _send(settler);
        assertEq(_earnings(nodeId), 130);
        _requireSession(0, 1, 10);
        _requireSession(1, 7, 20);
        _requireSession(3, 4_000_000_000, 100);
    }

    function test_BatchHasNoOtherEvent() public {
        _add(0, 1, 10);
        _add(2, 1, 20);
        vm.recordLogs();
        _send(settler);
        assertEq(vm.getRecordedLogs().length, 1);
    }

    function test_BatchOfManyNodesPaysEachItsOwn() public {
        _add(0, 1, 10);
        _add(2, 1, 20);
        _add(1, 1, 30);
        _add(4, 1, 40);
        _expectSettled(_batch);
        _send(settler);
        assertEq(_earnings(nodeId), 40);
        assertEq(_earnings(_secondNode), 60);
    }

    function test_BatchOfOneSessionTwicePaysTheLater() public {
        _add(0, 1, 10);
        _add(0, 2, 30);
        _send(settler);
        assertEq(_earnings(nodeId), 30);
        _requireSession(0, 2, 30);
    }

    function test_BatchOfNothingSettlesNothing() public {
        _expectSettled("");
        _send(settler);
    }

    /* SKIPPED */

    /// @dev Bit i of the mask spoils voucher i, each in another way.
    function testFuzz_BatchSkipsTheBadWhereverTheyStand(uint8 mask) public {
        _settleOne(_ids[4], 5, 50);
        uint256[2] memory expected = [uint256(0), 50];
        for (uint256 i = 0; i < _COUNT; ++i) {
            bool isBad = mask & (1 << i) != 0;
            bytes memory voucher = _packed(i, isBad);
            _batch = bytes.concat(_batch, voucher);
            if (!isBad) _settled = bytes.concat(_settled, voucher);
            if (!isBad) expected[_opened[i].nodeId == nodeId ? 0 : 1] += i == 4 ? 10 : 60;
        }
        _expectBadOnes(mask);
        _expectSettled(_settled);
        _send(settler);
        assertEq(_earnings(nodeId), expected[0]);
        assertEq(_earnings(_secondNode), expected[1]);
    }

    function test_BatchSkipsForeignNodesOnly() public {
        _add(0, 1, 10);
        _add(5, 1, 10);
        _add(1, 1, 10);
        _expectSkipShort(5, SettleStatus.NotSettler);
        _expectSettled(abi.encodePacked(_pack(0, 1, 10), _pack(1, 1, 10)));
        _send(settler);
        assertEq(_earnings(_foreignNode), 0);
        _requireSession(5, 0, 0);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_BatchOfAnyCallerButTheSettlerIsSkipped(address caller) public {
        vm.assume(caller != settler && caller != stranger);
        _add(0, 1, 10);
        _add(2, 1, 10);
        _add(5, 1, 10);
        _expectSkipShort(0, SettleStatus.NotSettler);
        _expectSkipShort(2, SettleStatus.NotSettler);
        _expectSkipShort(5, SettleStatus.NotSettler);
        _expectSettled("");
        _send(caller);
    }

    function test_BatchReplayIsStale() public {
        _add(0, 1, 10);
        _send(settler);
        _expectSkipShort(0, SettleStatus.Stale);
        _expectSettled("");
        _send(settler);
        assertEq(_earnings(nodeId), 10);
    }

    function test_BatchEndsWithGraceToTheSecond() public {
        _add(0, 1, 10);
        _add(2, 1, 10);
        uint256 end = _opened[0].expiresAt + GRACE;
        vm.warp(end);
        _expectSkipShort(0, SettleStatus.Expired);
        _expectSkipShort(2, SettleStatus.Expired);
        _send(settler);
        vm.warp(end - 1);
        _expectSettled(_batch);
        _send(settler);
        assertEq(_earnings(nodeId), 10);
    }

    function test_BatchSkipsAClosedSession() public {
        escrow.close(_opened[0], 0, _signClose(nodeKey, _ids[0], 0));
        _add(0, 1, 10);
        _expectSkipShort(0, SettleStatus.Closed);
        _send(settler);
        assertEq(_earnings(nodeId), 0);
    }

    /* SIGNATURE AND FORM */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_BatchSignedByAnotherKeyFindsNoSession(uint256 secret) public {
        secret = bound(secret, 1, 2 ** 250);
        Actor memory other = Actor(vm.addr(secret), secret);
        vm.assume(other.addr != key.addr);
        _add(0, 1, 10);
        (bytes32 r, bytes32 vs) = _signBatch(other);
        _expectSkipShort(0, SettleStatus.UnknownSession);
        vm.expectEmit(address(escrow));
        emit IEscrow.BatchSettled(other.addr, ROOT, "");
        vm.prank(settler);
        escrow.settleBatch(_batch, ROOT, r, vs);
        _requireSession(0, 0, 0);
    }

    function testFuzz_BatchThatWasTamperedWithFindsNoSession(uint256 at, uint8 change) public {
        change = uint8(bound(change, 1, 255));
        _add(0, 1, 10);
        _add(2, 1, 10);
        (bytes32 r, bytes32 vs) = _signBatch(key);
        at = bound(at, 0, _batch.length);
        bytes32 root = at == _batch.length ? bytes32(uint256(ROOT) ^ change) : ROOT;
        if (at < _batch.length) _batch[at] = bytes1(uint8(_batch[at]) ^ change);
        vm.prank(settler);
        escrow.settleBatch(_batch, root, r, vs);
        assertEq(_earnings(nodeId) + _earnings(_secondNode), 0);
    }

    /// @dev What recovers to nobody is a key without sessions.
    function test_BatchSignedByNobodyFindsNoSession() public {
        _add(0, 1, 10);
        _expectSkipShort(0, SettleStatus.UnknownSession);
        vm.expectEmit(address(escrow));
        emit IEscrow.BatchSettled(address(0), ROOT, "");
        vm.prank(settler);
        escrow.settleBatch(_batch, ROOT, 0, 0);
        bytes32 high = bytes32(type(uint256).max >> 1);
        (bytes32 r,) = _signBatch(key);
        _expectSkipShort(0, SettleStatus.UnknownSession);
        vm.prank(settler);
        escrow.settleBatch(_batch, ROOT, r, high);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_BatchRefusesALengthThatIsNoMultipleOf36(uint8 length) public {
        vm.assume(length % 36 != 0);
        _batch = new bytes(length);
        (bytes32 r, bytes32 vs) = _signBatch(key);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongBatch.selector, length, 36));
        vm.prank(settler);
        escrow.settleBatch(_batch, ROOT, r, vs);
    }

    function test_BatchSignedForAnotherChainFindsNoSession() public {
        _add(0, 1, 10);
        (bytes32 r, bytes32 vs) = _signBatch(key);
        vm.chainId(1);
        _expectSkipShort(0, SettleStatus.UnknownSession);
        vm.prank(settler);
        escrow.settleBatch(_batch, ROOT, r, vs);
    }

    /* AGAINST SINGLE VOUCHERS */

    function testFuzz_BatchDoesWhatSingleVouchersDo(uint256 seed, uint8 count) public {
        count = uint8(bound(count, 1, 8));
        SettleItem[] memory items = new SettleItem[](count);
        for (uint256 i = 0; i < count; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 which = seed % 6;
            uint32 seq = uint32((seed >> 16) % 4);
            uint64 amount = uint64((seed >> 32) % 130);
            _add(which, seq, amount);
            items[i] = _item(key, _ids[which], seq, amount);
        }
        uint256 snapshot = vm.snapshotState();
        _send(settler);
        bytes32 batched = _state();
        vm.revertToState(snapshot);
        vm.prank(settler);
        escrow.settle(items);
        assertEq(batched, _state());
    }

    /* HELPERS */

    function _add(uint256 i, uint32 seq, uint64 amount) private {
        _batch = bytes.concat(_batch, _pack(i, seq, amount));
    }

    function _send(address caller) private {
        (bytes32 r, bytes32 vs) = _signBatch(key);
        vm.prank(caller);
        escrow.settleBatch(_batch, ROOT, r, vs);
    }

    function _expectSettled(bytes memory vouchers) private {
        vm.expectEmit(address(escrow));
        emit IEscrow.BatchSettled(key.addr, ROOT, vouchers);
    }

    function _expectSkipShort(uint256 i, SettleStatus status) private {
        _expectSkip(bytes32(bytes24(_ids[i])), status);
    }

    function _expectBadOnes(uint8 mask) private {
        if (mask & 1 != 0) _expectSkipShort(0, SettleStatus.AboveDeposit);
        if (mask & 2 != 0) _expectSkip(bytes32(bytes24(keccak256("nothing"))), SettleStatus.UnknownSession);
        if (mask & 4 != 0) _expectSkipShort(2, SettleStatus.Stale);
        if (mask & 8 != 0) _expectSkipShort(5, SettleStatus.NotSettler);
        if (mask & 16 != 0) _expectSkipShort(4, SettleStatus.Stale);
    }

    function _packed(uint256 i, bool isBad) private view returns (bytes memory) {
        if (!isBad) return _pack(i, 5, 60);
        if (i == 0) return _pack(0, 5, _HELD + 1);
        if (i == 1) return abi.encodePacked(bytes24(keccak256("nothing")), uint32(5), uint64(60));
        if (i == 2) return _pack(2, 0, 0);
        if (i == 3) return _pack(5, 5, 60);
        return _pack(4, 4, 60);
    }

    function _pack(uint256 i, uint32 seq, uint64 amount) private view returns (bytes memory) {
        return abi.encodePacked(bytes24(_ids[i]), seq, amount);
    }

    function _signBatch(Actor memory signer) private view returns (bytes32 r, bytes32 vs) {
        return vm.signCompact(signer.secret, _digest(Messages.hash(VoucherBatch(keccak256(_batch), ROOT))));
    }

    function _requireSession(uint256 i, uint32 seq, uint64 paid) private view {
        Session memory held = _held(_ids[i]);
        assertEq(held.throughSeq, seq);
        assertEq(held.paid, paid);
        assertEq(held.deposited, _HELD);
        assertEq(held.flags, 1);
    }

    function _state() private view returns (bytes32 state) {
        for (uint256 i = 0; i < _ids.length; ++i) {
            state = keccak256(abi.encode(state, _held(_ids[i])));
        }
        return keccak256(abi.encode(state, _earnings(nodeId), _earnings(_secondNode), _earnings(_foreignNode)));
    }
}
