// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test, Vm} from "forge-std/Test.sol";
import {IVoucherBook} from "../../../contracts/mocks/IVoucherBook.sol";
import {Messages, Voucher} from "../../../contracts/types/Messages.sol";
import {Session, SettleItem} from "../../../contracts/types/Sessions.sol";
import {Rulebook} from "../support/Rulebook.sol";

/// @title The hot loop against the rules one by one, and against OpenZeppelin's ECDSA
contract VouchersTest is Test {
    uint256 private constant _ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    bytes32 private constant _ROOT = keccak256("root");
    uint256 private constant _KEY = 7;
    uint256 private constant _OTHER_KEY = 8;
    uint256 private constant _SESSIONS = 4;
    uint256 private constant _ITEMS = 10;
    uint32 private constant _NODES = 3;
    uint40 private constant _GRACE_END = 1000;

    address private immutable _BY = makeAddr("settler");
    IVoucherBook private _fast;
    Rulebook private _slow;
    bytes private _batch;
    uint256 private _dice;

    function setUp() public {
        _fast = IVoucherBook(deployCode("VoucherBook.sol:VoucherBook"));
        _slow = new Rulebook(_fast.DOMAIN(), _BY, _GRACE_END);
    }

    /* AGAINST THE RULES */

    function testFuzz_ItemsSettleAsByTheRulesOneByOne(uint256 seed) public {
        _dice = seed;
        _scene();
        SettleItem[] memory items = new SettleItem[](_ITEMS);
        for (uint256 i = 0; i < _ITEMS; ++i) {
            uint256 key = _roll(8) == 0 ? _OTHER_KEY : _KEY;
            items[i] = _signed(key, Voucher(_id(_roll(_SESSIONS)), uint32(_roll(5)), uint128(_roll(13)), _ROOT));
        }
        vm.recordLogs();
        uint256[] memory skipped = _fast.settle(items, _BY, _GRACE_END);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(skipped, _slow.settle(items));
        _requireSameLogs(logs, vm.getRecordedLogs());
        _requireSame();
    }

    function testFuzz_BatchesSettleAsByTheRulesOneByOne(uint256 seed) public {
        _dice = seed;
        _scene();
        for (uint256 i = 0; i < _ITEMS; ++i) {
            _batch =
                abi.encodePacked(_batch, bytes24(_id(_roll(_SESSIONS))), uint32(_roll(5)), uint64(_roll(13)));
        }
        vm.recordLogs();
        uint256[] memory skipped = _fast.settleBatch(_batch, vm.addr(_KEY), _BY, _GRACE_END);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(skipped, _slow.settleBatch(_batch, vm.addr(_KEY)));
        _requireSame();
    }

    /// @dev The whole width of every field, against one session in good order.
    function testFuzz_WideNumbersSettleAsByTheRules(Session memory held, uint32 throughSeq, uint128 amount, bool wide)
        public
    {
        (held.nodeId, held.flags) = (1, 1);
        if (!wide) amount = uint64(amount);
        _put(0, held);
        _putNode(1, _BY, 0);
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _signed(_KEY, Voucher(_id(0), throughSeq, amount, _ROOT));
        assertEq(_fast.settle(items, _BY, _GRACE_END), _slow.settle(items));
        _requireSame();
    }

    function test_EarningsThatOverflowRevertTheCall() public {
        _put(0, Session(10, 0, 0, 1, 1, 1, _GRACE_END));
        _putNode(1, _BY, type(uint96).max - 9);
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _signed(_KEY, Voucher(_id(0), 1, 10, _ROOT));
        vm.expectRevert();
        _fast.settle(items, _BY, _GRACE_END);
        items[0] = _signed(_KEY, Voucher(_id(0), 1, 9, _ROOT));
        assertEq(_fast.settle(items, _BY, _GRACE_END).length, 0);
        (address settler, uint96 earnings) = _fast.node(1);
        assertEq(earnings, type(uint96).max);
        assertEq(settler, _BY);
    }

    /* AGAINST OPENZEPPELIN */

    function testFuzz_SignerIsFound(uint256 secret, Voucher calldata voucher) public {
        secret = bound(secret, 1, _ORDER - 1);
        assertEq(_signerOf(_signed(secret, voucher)), vm.addr(secret));
    }

    /// @dev Random r and vs recover to somebody half of the time, and have a high s half of the time.
    function testFuzz_SignerIsTheOneOpenZeppelinFinds(Voucher calldata voucher, bytes32 r, bytes32 vs) public {
        (address expected,,) = ECDSA.tryRecover(_slow.digestOf(voucher), r, vs);
        assertEq(_signerOf(_item(voucher, r, vs)), expected);
    }

    /// @dev Most signatures have no twin in this form: `s` has 255 bits, and few of those are above half the order.
    function testFuzz_SignerOfAHighSIsNobody(Voucher calldata voucher, bytes32 r, uint256 s, bool isOdd) public {
        s = bound(s, _ORDER / 2 + 1, type(uint256).max >> 1);
        assertEq(_signerOf(_item(voucher, r, bytes32(s | (isOdd ? 1 << 255 : 0)))), address(0));
    }

    function test_SignerIsNobodyFromHalfTheOrderOn() public {
        Voucher memory voucher = Voucher(_id(0), 1, 2, _ROOT);
        bytes32 r = _signed(_KEY, voucher).r;
        for (uint256 i = 0; i < 4; ++i) {
            bytes32 vs = bytes32(_ORDER / 2 - 1 + i);
            (address expected,,) = ECDSA.tryRecover(_slow.digestOf(voucher), r, vs);
            assertEq(_signerOf(_item(voucher, r, vs)), expected);
            assertEq(expected == address(0), i > 1);
        }
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SignerOfNumbersThatOverflowTheirFieldIsNobody(
        Voucher calldata voucher,
        uint256 seq,
        uint256 amount
    ) public {
        seq = bound(seq, 0, type(uint64).max);
        amount = bound(amount, 0, type(uint160).max);
        bytes memory item = abi.encode(voucher.sessionId, seq, amount, voucher.receiptsRoot);
        bytes32 structHash = keccak256(bytes.concat(Messages.VOUCHER_TYPEHASH, item));
        (bytes32 r, bytes32 vs) =
            vm.signCompact(_KEY, MessageHashUtils.toTypedDataHash(_fast.DOMAIN(), structHash));
        bytes memory list = abi.encode(uint256(0x20), uint256(1));
        (bool ok, bytes memory result) =
            address(_fast).call(bytes.concat(IVoucherBook.signersOf.selector, list, item, r, vs));
        assertTrue(ok);
        bool fits = seq <= type(uint32).max && amount <= type(uint128).max;
        assertEq(abi.decode(result, (address[]))[0], fits ? vm.addr(_KEY) : address(0));
    }

    function test_SignaturesByNobodyLeaveNoStaleSigner() public {
        SettleItem[] memory items = new SettleItem[](3);
        Voucher memory voucher = Voucher(_id(0), 1, 2, _ROOT);
        items[0] = _signed(_KEY, voucher);
        items[1] = _item(voucher, 0, 0);
        items[2] = _item(voucher, items[0].r, bytes32(type(uint256).max >> 1));
        address[] memory signers = _fast.signersOf(items);
        assertEq(signers[0], vm.addr(_KEY));
        assertEq(signers[1], address(0));
        assertEq(signers[2], address(0));
    }

    /* PACKING */

    function testFuzz_VoucherAtReadsWhatWasPacked(bytes24[3] memory ids, uint32[3] memory seqs, uint64[3] memory sums)
        public
    {
        for (uint256 i = 0; i < 3; ++i) {
            _batch = abi.encodePacked(_batch, ids[i], seqs[i], sums[i]);
        }
        for (uint256 i = 0; i < 3; ++i) {
            (bytes24 shortId, uint256 throughSeq, uint256 amount) = _fast.voucherAt(_batch, i);
            assertEq(abi.encode(shortId, throughSeq, amount), abi.encode(ids[i], seqs[i], sums[i]));
        }
    }

    function testFuzz_RemoveTakesOneVoucherOutAndKeepsTheOthers(uint8 count, uint8 which, bytes32 seed) public {
        count = uint8(bound(count, 1, 6));
        which = uint8(bound(which, 0, count - 1));
        bytes memory expected;
        for (uint256 i = 0; i < count; ++i) {
            bytes memory voucher = abi.encodePacked(keccak256(abi.encode(seed, i)), uint32(i));
            _batch = bytes.concat(_batch, voucher);
            if (i != which) expected = bytes.concat(expected, voucher);
        }
        assertEq(_fast.removed(_batch, which), expected);
    }

    /* HELPERS */

    /// @dev Small numbers, so that every rule is met and broken often.
    function _scene() private {
        for (uint32 id = 0; id < _NODES; ++id) {
            _putNode(id, _roll(4) == 0 ? address(0xdead) : _BY, uint96(_roll(100)));
        }
        for (uint256 i = 0; i < _SESSIONS; ++i) {
            uint64 deposited = uint64(_roll(12));
            uint8[6] memory flags = [1, 1, 1, 0, 3, 5];
            uint32 nodeId = uint32(1 + _roll(_NODES - 1));
            Session memory held = Session({
                deposited: deposited,
                paid: uint64(_roll(deposited + 1)),
                throughSeq: uint32(_roll(4)),
                nodeId: nodeId,
                flags: flags[_roll(6)],
                keyEpoch: uint16(_roll(3)),
                expiresAt: uint40(_GRACE_END - 1 + _roll(8))
            });
            if (held.flags != 0) _put(i, held);
        }
    }

    function _roll(uint256 sides) private returns (uint256) {
        _dice = uint256(keccak256(abi.encode(_dice)));
        return _dice % sides;
    }

    function _put(uint256 i, Session memory held) private {
        _fast.put(vm.addr(_KEY), bytes24(_id(i)), held);
        _slow.put(vm.addr(_KEY), bytes24(_id(i)), held);
    }

    function _putNode(uint32 id, address settler, uint96 earnings) private {
        _fast.putNode(id, settler, earnings);
        _slow.putNode(id, settler, earnings);
    }

    function _signerOf(SettleItem memory item) private returns (address) {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = item;
        return _fast.signersOf(items)[0];
    }

    function _requireSame() private view {
        for (uint256 i = 0; i < _SESSIONS; ++i) {
            bytes24 shortId = bytes24(_id(i));
            Session memory expected = _slow.session(vm.addr(_KEY), shortId);
            assertEq(abi.encode(_fast.session(vm.addr(_KEY), shortId)), abi.encode(expected));
        }
        for (uint32 id = 0; id < _NODES; ++id) {
            (address settler, uint96 earnings) = _fast.node(id);
            (address wantedSettler, uint96 wanted) = _slow.node(id);
            assertEq(settler, wantedSettler);
            assertEq(earnings, wanted);
        }
    }

    function _signed(uint256 secret, Voucher memory voucher) private view returns (SettleItem memory) {
        (bytes32 r, bytes32 vs) = vm.signCompact(secret, _slow.digestOf(voucher));
        return _item(voucher, r, vs);
    }

    function _requireSameLogs(Vm.Log[] memory got, Vm.Log[] memory wanted) private pure {
        assertEq(got.length, wanted.length);
        for (uint256 i = 0; i < got.length; ++i) {
            assertEq(abi.encode(got[i].topics, got[i].data), abi.encode(wanted[i].topics, wanted[i].data));
        }
    }

    function _id(uint256 i) private pure returns (bytes32) {
        return keccak256(abi.encode("session", i));
    }

    function _item(Voucher memory voucher, bytes32 r, bytes32 vs) private pure returns (SettleItem memory) {
        return SettleItem(voucher.sessionId, voucher.throughSeq, voucher.amount, voucher.receiptsRoot, r, vs);
    }
}
