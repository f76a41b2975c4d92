// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {TestDollar} from "./../../contracts/TestDollar.sol";

contract TestDollarTest is Test {
    bytes32 private constant _TRANSFER = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 private constant _RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 private constant _CANCEL = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
    bytes32 private constant _PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 private constant _NONCE = keccak256("nonce");

    TestDollar private _token;
    address private _payer;
    uint256 private _secret;
    address private _payee = makeAddr("payee");

    function setUp() public {
        vm.warp(1000);
        (_payer, _secret) = makeAddrAndKey("payer");
        _token = new TestDollar();
        _token.faucet(_payer, 100e6);
    }

    function test_TestDollarLooksLikeMoney() public view {
        assertEq(_token.name(), "Test Dollar");
        assertEq(_token.symbol(), "TUSD");
        assertEq(_token.decimals(), 6);
    }

    /// hardhat-config: default.fuzz.runs = 100
    function testFuzz_TestDollarExistsOnLocalChainsOnly(uint64 chainId) public {
        vm.assume(chainId != 31_337 && chainId != 1337 && chainId != 0);
        vm.chainId(chainId);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.TestDollar_NotLocal.selector, chainId));
        new TestDollar();
        vm.chainId(1337);
        new TestDollar();
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_FaucetIsCappedPerCall(uint256 amount) public {
        uint256 limit = _token.FAUCET_LIMIT();
        if (amount > limit) {
            vm.expectRevert(abi.encodeWithSelector(TestDollar.TestDollar_AboveFaucet.selector, amount, limit));
        }
        _token.faucet(_payee, amount);
        assertEq(_token.balanceOf(_payee), amount > limit ? 0 : amount);
    }

    function test_PermitApproves() public {
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(_secret, _digest(abi.encode(_PERMIT, _payer, _payee, 7, 0, 2000)));
        _token.permit(_payer, _payee, 7, 2000, v, r, s);
        assertEq(_token.allowance(_payer, _payee), 7);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_TransferWithAuthorizationWorksOnceInEitherForm(bool asBytes, uint256 value) public {
        value = bound(value, 0, 100e6);
        (uint8 v, bytes32 r, bytes32 s) = _authorize(_TRANSFER, value);
        if (asBytes) {
            _token.transferWithAuthorization(_payer, _payee, value, 0, 2000, _NONCE, abi.encodePacked(r, s, v));
        } else {
            _token.transferWithAuthorization(_payer, _payee, value, 0, 2000, _NONCE, v, r, s);
        }
        assertEq(_token.balanceOf(_payee), value);
        assertTrue(_token.authorizationState(_payer, _NONCE));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, _payer, _NONCE));
        _token.transferWithAuthorization(_payer, _payee, value, 0, 2000, _NONCE, abi.encodePacked(r, s, v));
    }

    /// hardhat-config: default.fuzz.runs = 100
    function testFuzz_ReceiveWithAuthorizationIsForThePayeeOnly(bool asBytes) public {
        (uint8 v, bytes32 r, bytes32 s) = _authorize(_RECEIVE, 5);
        bytes memory signature = abi.encodePacked(r, s, v);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, _payee));
        _token.receiveWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, signature);
        vm.startPrank(_payee);
        if (asBytes) _token.receiveWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, signature);
        else _token.receiveWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, v, r, s);
        assertEq(_token.balanceOf(_payee), 5);
    }

    /// hardhat-config: default.fuzz.runs = 100
    function testFuzz_CancelAuthorizationVoidsItInEitherForm(bool asBytes) public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_secret, _digest(abi.encode(_CANCEL, _payer, _NONCE)));
        if (asBytes) _token.cancelAuthorization(_payer, _NONCE, abi.encodePacked(r, s, v));
        else _token.cancelAuthorization(_payer, _NONCE, v, r, s);
        (v, r, s) = _authorize(_TRANSFER, 5);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, _payer, _NONCE));
        _token.transferWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, v, r, s);
    }

    function test_AuthorizationsInBytesRefuseOtherSigners() public {
        _secret = uint256(keccak256("other"));
        (uint8 v, bytes32 r, bytes32 s) = _authorize(_TRANSFER, 5);
        bytes memory signature = abi.encodePacked(r, s, v);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _token.transferWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, signature);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _token.receiveWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, signature);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _token.cancelAuthorization(_payer, _NONCE, signature);
    }

    function test_AuthorizationsHaveAnExclusiveWindow() public {
        (uint8 v, bytes32 r, bytes32 s) = _authorize(_TRANSFER, 5);
        vm.warp(2000);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, 0, 2000));
        _token.transferWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, abi.encodePacked(r, s, v));
        vm.warp(1999);
        _token.transferWithAuthorization(_payer, _payee, 5, 0, 2000, _NONCE, abi.encodePacked(r, s, v));
    }

    function _authorize(bytes32 typeHash, uint256 value) private view returns (uint8, bytes32, bytes32) {
        return vm.sign(_secret, _digest(abi.encode(typeHash, _payer, _payee, value, 0, 2000, _NONCE)));
    }

    function _digest(bytes memory encoded) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_token.DOMAIN_SEPARATOR(), keccak256(encoded));
    }
}
