// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Fixture} from "../support/Fixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title depositWithAuthorization
contract AuthorizationTest is Fixture {
    bytes32 private constant _RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 private constant _TRANSFER = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    uint256 private constant _AFTER = START - 1;
    uint256 private constant _BEFORE = START + 1 hours;
    bytes32 private constant _NONCE = keccak256("nonce");

    function testFuzz_AuthorizationCreditsWhoeverSignedIt(address sender, uint128 amount, bytes32 nonce) public {
        amount = uint128(bound(amount, 1, FUNDS));
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), amount, nonce);
        vm.expectEmit(address(escrow));
        emit IEscrow.Deposited(buyer.addr, amount);
        vm.prank(sender);
        escrow.depositWithAuthorization(buyer.addr, amount, _AFTER, _BEFORE, nonce, signature);
        assertEq(escrow.accountOf(buyer.addr), amount);
        assertEq(token.balanceOf(address(escrow)), amount);
        assertEq(token.balanceOf(buyer.addr), FUNDS - amount);
    }

    /// @dev Older tokens have no other form.
    function test_AuthorizationOfAPlainAccountIsInTheFormThatEveryTokenHas() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 10, _NONCE);
        string memory plain =
            "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)";
        vm.expectCall(address(token), abi.encodeWithSelector(bytes4(keccak256(bytes(plain)))));
        _deposit10(signature);
        assertEq(escrow.accountOf(buyer.addr), 10);
    }

    /// @dev The token asks the wallet; the signature is bytes to everyone else.
    function testFuzz_AuthorizationOfAContractWalletIsInBytes(uint128 amount, bool isLong) public {
        amount = uint128(bound(amount, 1, FUNDS));
        Wallet wallet = new Wallet(buyer.addr);
        _mint(address(wallet), amount);
        bytes memory signature = _authorize(_RECEIVE, address(wallet), address(escrow), amount, _NONCE);
        if (isLong) {
            wallet.setMood(Wallet.Mood.AcceptAll);
            signature = bytes.concat(signature, signature);
        }
        escrow.depositWithAuthorization(address(wallet), amount, _AFTER, _BEFORE, _NONCE, signature);
        assertEq(escrow.accountOf(address(wallet)), amount);
        assertEq(escrow.accountOf(buyer.addr), 0);
    }

    function test_AuthorizationThatTheWalletRefusesMovesNothing() public {
        Wallet wallet = new Wallet(buyer.addr);
        _mint(address(wallet), 10);
        bytes memory signature = _authorize(_RECEIVE, address(wallet), address(escrow), 10, _NONCE);
        wallet.setMood(Wallet.Mood.RefuseAll);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        escrow.depositWithAuthorization(address(wallet), 10, _AFTER, _BEFORE, _NONCE, signature);
        assertEq(token.balanceOf(address(wallet)), 10);
    }

    function test_AuthorizationWorksOnce() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 10, _NONCE);
        _deposit10(signature);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, buyer.addr, _NONCE));
        _deposit10(signature);
        assertEq(escrow.accountOf(buyer.addr), 10);
    }

    function test_AuthorizationToAnotherReceiverIsRefused() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, stranger, 10, _NONCE);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _deposit10(signature);
    }

    function test_AuthorizationOfATransferIsRefused() public {
        bytes memory signature = _authorize(_TRANSFER, buyer.addr, address(escrow), 10, _NONCE);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _deposit10(signature);
    }

    function test_AuthorizationOfAnotherAmountIsRefused() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 11, _NONCE);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _deposit10(signature);
    }

    function test_AuthorizationBySomebodyElseIsRefused() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 10, _NONCE);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        escrow.depositWithAuthorization(provider, 10, _AFTER, _BEFORE, _NONCE, signature);
    }

    function test_AuthorizationHasAnExclusiveWindow() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 10, _NONCE);
        bytes memory reason =
            abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, _AFTER, _BEFORE);
        vm.warp(_AFTER);
        vm.expectRevert(reason);
        _deposit10(signature);
        vm.warp(_BEFORE);
        vm.expectRevert(reason);
        _deposit10(signature);
        vm.warp(_BEFORE - 1);
        _deposit10(signature);
        assertEq(escrow.accountOf(buyer.addr), 10);
    }

    function test_AuthorizationOfMoreThanTheBuyerHasMovesNothing() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), FUNDS + 1, _NONCE);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, buyer.addr, FUNDS, FUNDS + 1)
        );
        escrow.depositWithAuthorization(buyer.addr, FUNDS + 1, _AFTER, _BEFORE, _NONCE, signature);
        assertEq(escrow.accountOf(buyer.addr), 0);
    }

    function test_AuthorizationRefusesZero() public {
        bytes memory signature = _authorize(_RECEIVE, buyer.addr, address(escrow), 0, _NONCE);
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        escrow.depositWithAuthorization(buyer.addr, 0, _AFTER, _BEFORE, _NONCE, signature);
    }

    function test_AuthorizationAtATokenThatMovesNothingIsRefused() public {
        bytes4 asBytes =
            bytes4(keccak256("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"));
        vm.mockCall(address(token), abi.encodeWithSelector(asBytes), "");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongDelta.selector, 0, 10));
        _deposit10("any length but 65");
    }

    function _deposit10(bytes memory signature) private {
        escrow.depositWithAuthorization(buyer.addr, 10, _AFTER, _BEFORE, _NONCE, signature);
    }

    /// @dev Signed by the buyer, whoever pays.
    function _authorize(bytes32 typeHash, address from, address to, uint256 amount, bytes32 nonce)
        private
        view
        returns (bytes memory)
    {
        bytes32 structHash = keccak256(abi.encode(typeHash, from, to, amount, _AFTER, _BEFORE, nonce));
        bytes32 domain = IERC20Permit(address(token)).DOMAIN_SEPARATOR();
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(buyer.secret, MessageHashUtils.toTypedDataHash(domain, structHash));
        return abi.encodePacked(r, s, v);
    }
}
