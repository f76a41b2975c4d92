// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {Vouchers} from "../../../contracts/libraries/Vouchers.sol";
import {Messages, Voucher} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";

contract VouchersTest is Test {
    bytes32 private constant _DOMAIN = keccak256("domain");
    uint256 private constant _ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    function testFuzz_ReadFindsTheSigner(uint256 secret, Voucher calldata voucher) public view {
        secret = bound(secret, 1, _ORDER - 1);
        (bytes32 r, bytes32 vs) = vm.signCompact(secret, _digest(voucher));
        (address signer, uint256 throughSeq, uint256 amount) = this.read(_item(voucher, r, vs));
        assertEq(signer, vm.addr(secret));
        assertEq(throughSeq, voucher.throughSeq);
        assertEq(amount, voucher.amount);
    }

    /// @dev Random r and vs recover to somebody half of the time, and have a high s half of the time.
    function testFuzz_ReadAgreesWithOpenZeppelin(Voucher calldata voucher, bytes32 r, bytes32 vs) public view {
        (address expected,,) = ECDSA.tryRecover(_digest(voucher), r, vs);
        (address signer,,) = this.read(_item(voucher, r, vs));
        assertEq(signer, expected);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_ReadRefusesNumbersThatOverflowTheirField(Voucher calldata voucher, uint256 seq, uint256 amount)
        public
        view
    {
        seq = bound(seq, 0, type(uint64).max);
        amount = bound(amount, 0, type(uint160).max);
        bytes memory item = abi.encode(voucher.sessionId, seq, amount, voucher.receiptsRoot);
        bytes32 structHash = keccak256(bytes.concat(Messages.VOUCHER_TYPEHASH, item));
        (bytes32 r, bytes32 vs) = vm.signCompact(7, MessageHashUtils.toTypedDataHash(_DOMAIN, structHash));
        bytes memory data = bytes.concat(this.read.selector, item, r, vs);
        (bool ok, bytes memory result) = address(this).staticcall(data);
        assertTrue(ok);
        bool fits = seq <= type(uint32).max && amount <= type(uint128).max;
        assertEq(abi.decode(result, (address)), fits ? vm.addr(7) : address(0));
    }

    function test_ReadOfSignaturesByNobodyLeavesNoStaleSigner() public view {
        Voucher memory voucher = Voucher(keccak256("session"), 1, 2, keccak256("root"));
        (bytes32 r, bytes32 vs) = vm.signCompact(7, _digest(voucher));
        SettleItem[3] memory items;
        (items[0], items[1]) = (_item(voucher, r, vs), _item(voucher, 0, 0));
        items[2] = _item(voucher, r, bytes32(type(uint256).max >> 1));
        address[3] memory signers = this.readAll(items);
        assertEq(signers[0], vm.addr(7));
        assertEq(signers[1], address(0));
        assertEq(signers[2], address(0));
    }

    function read(SettleItem calldata item) external view returns (address, uint256, uint256) {
        return Vouchers.read(item, _DOMAIN);
    }

    function readAll(SettleItem[3] calldata items) external view returns (address[3] memory signers) {
        for (uint256 i = 0; i < 3; ++i) {
            (signers[i],,) = Vouchers.read(items[i], _DOMAIN);
        }
    }

    function _digest(Voucher memory voucher) private pure returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_DOMAIN, Messages.hash(voucher));
    }

    function _item(Voucher memory voucher, bytes32 r, bytes32 vs) private pure returns (SettleItem memory) {
        return SettleItem(voucher.sessionId, voucher.throughSeq, voucher.amount, voucher.receiptsRoot, r, vs);
    }
}
