// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Payment} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";

/// @title Token with EIP-3009 that makes one armed call in the middle of the next transfer
contract CallingToken is ERC3009 {
    address private _target;
    bytes private _armed;
    bool public worked;

    constructor() ERC20("Calling Token", "CALL") EIP712("Calling Token", "1") {}

    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function arm(address target, bytes calldata data) external {
        (_target, _armed, worked) = (target, data, false);
    }

    function burn(address from, uint256 amount) external {
        _burn(from, amount);
    }

    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (_armed.length == 0) return;
        bytes memory data = _armed;
        delete _armed;
        (worked,) = _target.call(data);
    }
}

/// @title Calls from inside the token
contract ReentrancyTest is TillFixture {
    CallingToken private _calling;

    function _newToken() internal override returns (IERC20) {
        _calling = new CallingToken();
        return _calling;
    }

    function _mint(address to, uint256 amount) internal override {
        _calling.faucet(to, amount);
    }

    function test_PaymentFromInsideItsOwnTransferPaysOnce() public {
        Payment memory payment = _payment(buyer, "nonce");
        _calling.arm(address(till), abi.encodeCall(ITill.pay, (quote, payment)));
        till.pay(quote, payment);
        assertTrue(_calling.worked());
        assertEq(_held(sessionId).deposited, PRICE);
        assertEq(_balance(buyer), FUNDS - PRICE);
    }

    function test_RefundFromInsideThePaymentFindsNothing() public {
        _calling.arm(address(till), abi.encodeCall(ITill.refund, (quote)));
        till.pay(quote, _payment(buyer, "nonce"));
        assertTrue(_calling.worked());
        assertEq(_held(sessionId).deposited, PRICE);
    }

    function test_RefundFromInsideARefundSendsNothingMore() public {
        till.pay(quote, _payment(buyer, "nonce"));
        vm.warp(_end());
        _calling.arm(address(till), abi.encodeCall(ITill.refund, (quote)));
        till.refund(quote);
        assertTrue(_calling.worked());
        assertEq(_balance(buyer), FUNDS);
        assertEq(token.balanceOf(address(escrow)), 0);
    }

    function test_PushedPaymentFromInsideItsDepositOpensOnce() public {
        Payment memory payment = _payment(buyer, "nonce");
        _pushPlain(payment);
        bytes memory call = abi.encodeCall(ITill.payPushed, (quote, payment, _named(key, payment)));
        _calling.arm(address(till), call);
        till.payPushed(quote, payment, _named(key, payment));
        assertTrue(_calling.worked());
        assertEq(_held(sessionId).deposited, PRICE);
        assertEq(token.balanceOf(receiver), 0);
    }

    function test_RecoveryFromInsideARecoverySendsNothingMore() public {
        Payment memory payment = _payment(buyer, "nonce");
        _pushPlain(payment);
        _mint(receiver, PRICE);
        vm.warp(quote.payBefore);
        bytes memory named = _named(key, payment);
        _calling.arm(address(till), abi.encodeCall(ITill.recover, (quote, payment, named)));
        till.recover(quote, payment, named);
        assertTrue(_calling.worked());
        assertEq(_balance(buyer), FUNDS);
        assertEq(token.balanceOf(receiver), PRICE);
    }

    function test_TokensOfOthersThatArriveInsideThePaymentAreRefused() public {
        _mint(address(_calling), 5);
        _calling.arm(address(_calling), abi.encodeCall(IERC20.transfer, (receiver, 5)));
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongDelta.selector, PRICE + 5, PRICE));
        till.pay(quote, payment);
    }

    function test_PaymentInWhichTheReceiversBalanceFallsIsRefused() public {
        _mint(receiver, 10 * PRICE);
        _calling.arm(address(_calling), abi.encodeCall(CallingToken.burn, (receiver, 5 * PRICE)));
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongDelta.selector, 0, PRICE));
        till.pay(quote, payment);
    }

    function _pushPlain(Payment memory payment) private {
        (bytes32 r, bytes32 s, uint8 v) = _split(payment.signature);
        _calling.transferWithAuthorization(payment.from, receiver, PRICE, 0, START + 120, "nonce", v, r, s);
    }

    function _split(bytes memory signature) private pure returns (bytes32 r, bytes32 s, uint8 v) {
        (r, s) = abi.decode(signature, (bytes32, bytes32));
        v = uint8(signature[64]);
    }
}
