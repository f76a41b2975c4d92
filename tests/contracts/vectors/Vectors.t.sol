// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Pricing} from "../../../contracts/libraries/Pricing.sol";
import {
    Close,
    KeyGrant,
    Messages,
    Offer,
    Open,
    Order,
    Receipt as JobReceipt,
    Settlement,
    TopUp,
    Voucher,
    VoucherBatch
} from "../../../contracts/types/Messages.sol";

/// @title The golden vectors that Python wrote, read back in Solidity
contract VectorsTest is Test {
    uint256 private constant _FEW = 100;
    uint256 private constant _MANY = 500;

    string private _messages;
    bytes32 private _domain;
    IEscrow private _escrow;

    function setUp() public {
        _messages = vm.readFile("tests/vectors/messages.json");
        address at = vm.parseJsonAddress(_messages, ".domain.escrow");
        vm.chainId(vm.parseJsonUint(_messages, ".domain.chainId"));
        address one = address(1);
        bytes memory arguments = abi.encode(one, one, one, one, uint32(1), uint32(1), uint32(60));
        vm.etch(at, deployCode("Escrow.sol:Escrow", arguments).code);
        _escrow = IEscrow(at);
        _domain = _escrow.DOMAIN_SEPARATOR();
    }

    function test_OfferDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".offer", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (Offer)))), digests[i]);
        }
    }

    function test_KeyGrantDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".keyGrant", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (KeyGrant)))), digests[i]);
        }
    }

    function test_OpenDigestsAreThoseOfPythonAndTheSessionIds() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".open", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            Open memory terms = abi.decode(encoded[i], (Open));
            assertEq(_digest(Messages.hash(terms)), digests[i]);
            assertEq(_escrow.sessionIdOf(terms), digests[i]);
        }
    }

    function test_TopUpDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".topUp", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (TopUp)))), digests[i]);
        }
    }

    function test_OrderDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".order", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (Order)))), digests[i]);
        }
    }

    function test_ReceiptDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".receipt", _MANY);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (JobReceipt)))), digests[i]);
        }
    }

    function test_VoucherDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".voucher", _MANY);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (Voucher)))), digests[i]);
        }
    }

    function test_VoucherBatchDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".voucherBatch", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (VoucherBatch)))), digests[i]);
        }
    }

    function test_SettlementDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".settlement", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (Settlement)))), digests[i]);
        }
    }

    function test_CloseDigestsAreThoseOfPython() public view {
        (bytes[] memory encoded, bytes32[] memory digests) = _read(".close", _FEW);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_digest(Messages.hash(abi.decode(encoded[i], (Close)))), digests[i]);
        }
    }

    function test_PricesAreThoseOfPython() public view {
        string memory json = vm.readFile("tests/vectors/pricing.json");
        bytes[] memory encoded = vm.parseJsonBytesArray(json, ".encoded");
        bytes32[] memory amounts = vm.parseJsonBytes32Array(json, ".amounts");
        assertEq(encoded.length, amounts.length);
        assertGe(encoded.length, _MANY);
        for (uint256 i = 0; i < encoded.length; ++i) {
            assertEq(_price(encoded[i]), uint256(amounts[i]));
        }
    }

    function _read(string memory name, uint256 atLeast)
        private
        view
        returns (bytes[] memory encoded, bytes32[] memory digests)
    {
        encoded = vm.parseJsonBytesArray(_messages, string.concat(name, ".encoded"));
        digests = vm.parseJsonBytes32Array(_messages, string.concat(name, ".digests"));
        assertEq(encoded.length, digests.length);
        assertGe(encoded.length, atLeast);
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_domain, structHash);
    }

    function _price(bytes memory encoded) private pure returns (uint256) {
        (Offer memory offer, Order memory order, uint64 unitsIn, uint64 unitsOut, uint64 finishedAtMs, uint8 status) =
            abi.decode(encoded, (Offer, Order, uint64, uint64, uint64, uint8));
        return Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, status);
    }
}
