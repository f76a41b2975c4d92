// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IReceiver} from "./../../contracts/interfaces/IReceiver.sol";
import {ITill} from "./../../contracts/interfaces/ITill.sol";
import {Open} from "./../../contracts/types/Messages.sol";
import {Payment} from "./../../contracts/types/Quotes.sol";
import {Session} from "./../../contracts/types/Sessions.sol";
import {TillProof} from "./support/TillProof.sol";

/// @title Money to a quote's receiver and back, by anyone, with any signatures, at any time
contract TillProofs is TillProof {
    function check_AReceiverObeysNobodyButItsTill(address caller, address to, uint256 amount, Open calldata terms)
        external
    {
        vm.assume(caller != address(till));
        vm.startPrank(caller);
        (bool isOpen,) = receiver.call(abi.encodeCall(IReceiver.open, (terms)));
        (bool isOut,) = receiver.call(abi.encodeCall(IReceiver.withdraw, (to)));
        (bool isTaken,) = receiver.call(abi.encodeCall(IReceiver.takeAwards, (to)));
        (bool isBack,) = receiver.call(abi.encodeCall(IReceiver.giveBack, (to, amount)));
        vm.stopPrank();
        assertFalse(isOpen);
        assertFalse(isOut);
        assertFalse(isTaken);
        assertFalse(isBack);
    }

    function check_PayTakesExactlyTheAmountFromWhoeverSignedAndOpensTheSession(
        address caller,
        Payment calldata payment,
        uint40 time
    ) external {
        vm.warp(time);
        _assumePerson(payment.from);
        vm.assume(till.payerOf(receiver) == address(0));
        vm.assume(_session().flags == 0 && _session().paid == 0); // nobody paid: nothing was opened
        (uint256 wallet, uint256 tokens) = (_tokens(payment.from), _tokens(receiver));
        uint256 account = escrow.accountOf(receiver);
        if (!_call(caller, abi.encodeCall(ITill.pay, (quote, payment)))) return;

        assertEq(till.payerOf(receiver), payment.from);
        assertEq(_tokens(payment.from), wallet - AMOUNT);
        assertEq(_tokens(receiver), tokens);
        assertEq(escrow.accountOf(receiver), account);
        Session memory held = _session();
        assertEq(held.deposited, AMOUNT);
        assertEq(held.flags, OPEN);
        assertEq(held.nodeId, 1);
        assertLt(time, PAY_BEFORE);
    }

    function check_AQuoteThatIsPaidTakesNothingMore(address caller, Payment calldata payment, uint40 time) external {
        vm.warp(time);
        _assumePerson(payment.from);
        address payer = till.payerOf(receiver);
        vm.assume(payer != address(0));
        (uint256 wallet, uint256 tokens) = (_tokens(payment.from), _tokens(receiver));
        bool ok = _call(caller, abi.encodeCall(ITill.pay, (quote, payment)));
        assertTrue(!ok || payer == payment.from);
        ok = _call(caller, abi.encodeCall(ITill.payPushed, (quote, payment, "")));
        assertTrue(!ok || payer == payment.from);
        assertEq(till.payerOf(receiver), payer);
        assertEq(_tokens(payment.from), wallet);
        assertEq(_tokens(receiver), tokens);
    }

    function check_APushedPaymentNeedsWhoeverSignedAndTheKeysWord(
        address caller,
        Payment calldata payment,
        bytes calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        _assumePerson(payment.from);
        vm.assume(till.payerOf(receiver) == address(0));
        vm.assume(_session().flags == 0 && _session().paid == 0);
        (uint256 wallet, uint256 tokens) = (_tokens(payment.from), _tokens(receiver));
        if (!_call(caller, abi.encodeCall(ITill.payPushed, (quote, payment, word)))) return;

        assertEq(_namedBy(payment, word), KEY);
        assertEq(_signerOf(payment), payment.from);
        assertTrue(_isUsed(payment));
        assertEq(payment.value, AMOUNT);
        assertEq(till.payerOf(receiver), payment.from);
        assertEq(_tokens(payment.from), wallet);
        assertEq(_tokens(receiver), tokens - AMOUNT);
        assertEq(_session().deposited, AMOUNT);
        assertLt(time, PAY_BEFORE);
    }

    function check_RefundPaysTheAccountToWhoeverPaidAndTouchesNoTokens(address caller, address other, uint40 time)
        external
    {
        vm.warp(time);
        address payer = till.payerOf(receiver);
        _assumePerson(payer);
        _assumePerson(other);
        vm.assume(other != payer);
        Session memory before = _session();
        vm.assume(_sound(before, _claim(sessionId)) && _isKnown(before.flags));
        uint256 account = escrow.accountOf(receiver);
        (uint256 wallet, uint256 others) = (_tokens(payer), _tokens(other));
        uint256 tokens = _tokens(receiver);
        if (!_call(caller, abi.encodeCall(ITill.refund, (quote)))) return;

        assertTrue(payer != address(0));
        assertEq(escrow.accountOf(receiver), 0);
        uint256 sent = _tokens(payer) - wallet;
        assertGe(sent, account);
        assertLe(sent, account + before.deposited);
        assertEq(_tokens(other), others);
        assertEq(_tokens(receiver), tokens);
    }

    function check_AwardsGoToWhoeverPaidExactly(address caller, uint40 time) external {
        vm.warp(time);
        address payer = till.payerOf(receiver);
        _assumePerson(payer);
        uint256 owed = _balance(receiver);
        (uint256 wallet, uint256 tokens) = (_tokens(payer), _tokens(receiver));
        if (!_call(caller, abi.encodeCall(ITill.takeAwards, (quote)))) return;

        assertTrue(payer != address(0));
        assertEq(_balance(receiver), 0);
        assertEq(_tokens(payer), wallet + owed);
        assertEq(_tokens(receiver), tokens);
    }

    function check_RecoverSendsAtMostWhatWasSignedAndTouchesNoAccount(
        address caller,
        Payment calldata payment,
        bytes calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        _assumePerson(payment.from);
        (uint256 wallet, uint256 tokens) = (_tokens(payment.from), _tokens(receiver));
        uint256 account = escrow.accountOf(receiver);
        if (!_call(caller, abi.encodeCall(ITill.recover, (quote, payment, word)))) return;

        uint256 sent = _tokens(payment.from) - wallet;
        assertEq(_tokens(receiver), tokens - sent);
        assertEq(escrow.accountOf(receiver), account);
        assertLe(sent, payment.value);
        assertGe(time, PAY_BEFORE);
    }

    function check_RecoverNeedsWhoeverSignedAndInTimeTheKeysWord(
        address caller,
        Payment calldata payment,
        bytes calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        _assumePerson(payment.from);
        uint256 tokens = _tokens(receiver);
        if (!_call(caller, abi.encodeCall(ITill.recover, (quote, payment, word)))) return;
        if (_tokens(receiver) == tokens) return;

        assertEq(_signerOf(payment), payment.from);
        assertTrue(_isUsed(payment));
        if (time < PAY_BEFORE + 1 days) assertEq(_namedBy(payment, word), KEY);
    }

    function check_ASecondRecoveryGivesNothing(
        address caller,
        Payment calldata payment,
        bytes calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        _assumePerson(payment.from);
        uint256 wallet = _tokens(payment.from);
        if (!_call(caller, abi.encodeCall(ITill.recover, (quote, payment, word)))) return;
        uint256 sent = _tokens(payment.from) - wallet;
        if (sent == 0) return;
        assertTrue(_call(caller, abi.encodeCall(ITill.recover, (quote, payment, word))));
        assertEq(_tokens(payment.from), wallet + sent);
    }
}
