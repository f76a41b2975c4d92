// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {IReceiver} from "../../../contracts/interfaces/IReceiver.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Payment, Quotes} from "../../../contracts/types/Quotes.sol";
import {HostileDollar} from "./HostileDollar.sol";
import {TillAttack} from "./TillAttack.sol";

/// @title Attacks 1, 2, 5, 6: what a quote's key signs
contract WordAttack is TillAttack {
    bytes32 private constant _PAYER = keccak256("Payer(bytes32 quoteHash,address from,bytes32 nonce)");

    function test_Attack01_AKeysWordCountsOnItsOwnChain() public {
        bytes memory word = _named(key, _payment(buyer, "nonce"));
        vm.chainId(block.chainid + 1);
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        bytes memory call = abi.encodeCall(ITill.payPushed, (quote, payment, word));
        string memory rule = "01: a word of another chain names nobody";
        _refused(stranger, address(till), call, ITill.Till_WrongKey.selector, rule);
    }

    function test_Attack02_AKeysWordCountsAtItsOwnEscrow() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        bytes memory word = _named(key, payment);
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        IEscrow other = _deployEscrow(address(token), registryAt, treasury, MAX_SESSION);
        till = ITill(deployCode("Till.sol:Till", abi.encode(address(other))));
        // The same nonce, used at the first till, to the second till's receiver; somebody else's tokens lie there.
        receiver = till.receiverOf(quote);
        payment = _payment(buyer, "nonce");
        _mint(receiver, PRICE);
        vm.warp(quote.payBefore);
        bytes memory call = abi.encodeCall(ITill.recover, (quote, payment, word));
        string memory rule = "02: a word for one till names nobody at another";
        _refused(stranger, address(till), call, ITill.Till_WrongKey.selector, rule);
    }

    function test_Attack05_AQuoteWithoutAKeyIsPaidByNobodysWord() public {
        quote.key = address(0);
        receiver = till.receiverOf(quote);
        _mint(receiver, PRICE);
        _cancel(thief, "nonce");
        Payment memory payment = _payment(thief, "nonce");
        vm.warp(quote.payBefore);
        bytes memory call = abi.encodeCall(ITill.recover, (quote, payment, new bytes(65)));
        _refused(thief.addr, address(till), call, ITill.Till_WrongKey.selector, "05: nobody's word is no word");
    }

    function test_Attack06_AKeySignsTheTypeThatIsPublished() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        bytes32 structHash = keccak256(abi.encode(_PAYER, Quotes.hash(quote), buyer.addr, payment.nonce));
        bytes memory call = abi.encodeCall(ITill.payPushed, (quote, payment, _sign(key, structHash)));
        _works(stranger, address(till), call, "06: the published type is the one that counts");
    }
}

/// @title Attacks 13, 14, 15, 42: tokens that break their word
contract HostileDollarAttack is TillAttack {
    HostileDollar private _hostile;

    function test_Attack13_NobodysTokensMakeUpForAFee() public {
        _mint(receiver, PRICE);
        _hostile.takeFee(10);
        bytes memory call = abi.encodeCall(ITill.pay, (quote, _payment(buyer, "nonce")));
        string memory rule = "13: what did not arrive is not made up for with tokens of others";
        _refused(stranger, address(till), call, ITill.Till_WrongDelta.selector, rule);
    }

    function test_Attack14_ABalanceThatFellPaidNothing() public {
        _mint(receiver, 10 * PRICE);
        _hostile.shrink(receiver);
        bytes memory call = abi.encodeCall(ITill.pay, (quote, _payment(buyer, "nonce")));
        string memory rule = "14: a payment in which the balance fell opens nothing";
        _refused(stranger, address(till), call, ITill.Till_WrongDelta.selector, rule);
    }

    function test_Attack15_APaymentInsideAnotherIsNotTheOthers() public {
        bytes memory victims = abi.encodeCall(ITill.pay, (quote, _payment(buyer, "nonce")));
        _hostile.arm(address(till), victims);
        till.pay(quote, _payment(thief, "nonce"));
        vm.warp(_end());
        till.refund(quote);
        assertLe(_balance(thief), FUNDS, "15: nobody is refunded what another paid");
        assertEq(_balance(thief) + _balance(buyer), 2 * FUNDS, "15: whoever paid is refunded");
    }

    function test_Attack42_TokensOnTheirWayBackAreGone() public {
        Payment memory payment = _payment(thief, "nonce");
        _mint(receiver, 2 * PRICE);
        _spend(payment);
        vm.warp(quote.payBefore + till.RECOVERY_SECONDS());
        bytes memory call = abi.encodeCall(ITill.recover, (quote, payment, ""));
        _hostile.arm(address(till), call);
        uint256 before = _balance(thief);
        till.recover(quote, payment, "");
        assertEq(_balance(thief) - before, PRICE, "42: a transfer is given back once");
    }

    function _newToken() internal override returns (IERC20) {
        _hostile = new HostileDollar();
        return _hostile;
    }

    function _mint(address to, uint256 amount) internal override {
        _hostile.faucet(to, amount);
    }

    /// @dev Sends it to the token, in the form that every such token has.
    function _spend(Payment memory payment) private {
        (bytes32 r, bytes32 s) = abi.decode(payment.signature, (bytes32, bytes32));
        uint8 v = uint8(payment.signature[64]);
        uint256 end = payment.validBefore;
        _hostile.transferWithAuthorization(payment.from, receiver, payment.value, 0, end, payment.nonce, v, r, s);
    }
}

/// @title Attacks 3, 19, 22 to 26, 33, 44, 52: other people's tokens in a receiver
contract ReceiverAttack is TillAttack {
    function test_Attack03_ATransferIsGivenBackOnce() public {
        Payment memory payment = _payment(thief, "nonce");
        _push(payment);
        _push(_payment(buyer, "nonce"));
        vm.warp(quote.payBefore);
        bytes memory word = _named(key, payment);
        till.recover(quote, payment, word);
        till.recover(quote, payment, word);
        assertEq(_balance(thief), FUNDS, "03: a transfer is given back once");
    }

    function test_Attack19_WhatLiesInAReceiverIsNobodysRefund() public {
        _push(_payment(buyer, "nonce"));
        till.pay(quote, _payment(thief, "nonce"));
        vm.warp(_end());
        till.refund(quote);
        assertEq(_balance(thief), FUNDS, "19: whoever pays a quote is not refunded what others sent");
    }

    function test_Attack22_WhatPaidIsNotGivenBack() public {
        Payment memory payment = _payment(thief, "nonce");
        till.pay(quote, payment);
        _push(_payment(buyer, "nonce"));
        vm.warp(_end());
        till.recover(quote, payment, _named(key, payment));
        till.refund(quote);
        assertEq(_balance(thief), FUNDS, "22: what opened the session is not given back as well");
    }

    function test_Attack23_NoTransferIsGivenBackWhileItCanPay() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        bytes memory word = _named(key, payment);
        for (uint256 second = quote.payBefore - 1; second <= quote.payBefore + 1; ++second) {
            uint256 state = vm.snapshotState();
            vm.warp(second);
            (bool isPaid,) = address(till).call(abi.encodeCall(ITill.payPushed, (quote, payment, word)));
            vm.revertToState(state);
            state = vm.snapshotState();
            vm.warp(second);
            (bool isBack,) = address(till).call(abi.encodeCall(ITill.recover, (quote, payment, word)));
            vm.revertToState(state);
            assertTrue(isPaid != isBack, "23: in each second exactly one of pay and recover works");
        }
    }

    function test_Attack24_ASmallPaymentBuysNoLargeSession() public {
        _push(_payment(buyer, "nonce"));
        bytes memory call = abi.encodeCall(ITill.pay, (quote, _payment(thief, 1, "nonce")));
        bytes4 error = ITill.Till_WrongAmount.selector;
        _refused(thief.addr, address(till), call, error, "24: one atom and tokens of others are no payment");
        Payment memory payment = _payment(thief, 1, "another nonce");
        _push(payment);
        call = abi.encodeCall(ITill.payPushed, (quote, payment, _named(key, payment)));
        _refused(thief.addr, address(till), call, error, "24: one atom sent before is no payment either");
    }

    function test_Attack26_APaymentBuysOfOneNodeOnly() public {
        Payment memory payment = _payment(buyer, "nonce");
        Actor memory other = _actor("another provider");
        _fund(other.addr);
        quote.nodeId = _serve(other.addr, other.addr, other.addr);
        bytes memory call = abi.encodeCall(ITill.pay, (quote, payment));
        bytes4 error = ERC3009.ERC3009InvalidSignature.selector;
        _refused(stranger, address(till), call, error, "26: a payment to one node buys nothing of another");
    }

    function test_Attack33_NobodyElseMovesWhatIsInAReceiver() public {
        till.pay(quote, _payment(buyer, "nonce"));
        _push(_payment(thief, "nonce"));
        SignedReceipt memory job = _job(_sessionTerms(), 1, 400);
        (bool isProven,) = address(court).call(_proofOfTwo(_sessionTerms(), job));
        assertTrue(isProven);
        court.payAward(job.receipt.orderHash);
        escrow.close(_sessionTerms(), 0, _signClose(nodeKey, sessionId, 0));
        bytes[3] memory calls = [
            abi.encodeCall(IReceiver.withdraw, (stranger)),
            abi.encodeCall(IReceiver.giveBack, (stranger, PRICE)),
            abi.encodeCall(IReceiver.takeAwards, (stranger))
        ];
        bytes4 error = IReceiver.Receiver_NotTill.selector;
        for (uint256 i = 0; i < calls.length; ++i) {
            _refused(stranger, receiver, calls[i], error, "33: a receiver obeys its till");
        }
        bytes memory call = abi.encodeCall(IReceiver.open, (_sessionTerms()));
        _refused(stranger, receiver, call, error, "33: a receiver opens what its till says");
    }

    function test_Attack44_APushedPaymentStaysItsPayers() public {
        _push(_payment(buyer, "nonce"));
        _cancel(thief, "nonce");
        Payment memory posed = _payment(thief, "nonce");
        bytes memory call = abi.encodeCall(ITill.payPushed, (quote, posed, _named(thief, posed)));
        bytes4 error = ITill.Till_WrongKey.selector;
        _refused(thief.addr, address(till), call, error, "44: whoever voided a transfer has not paid");
        vm.warp(quote.payBefore + 1 days - 1);
        call = abi.encodeCall(ITill.recover, (quote, posed, _named(thief, posed)));
        _refused(thief.addr, address(till), call, error, "44: whoever voided a transfer gets nothing back in time");
        Payment memory unused = _payment(thief, "another nonce");
        call = abi.encodeCall(ITill.recover, (quote, unused, _named(key, unused)));
        error = ITill.Till_NotUsed.selector;
        _refused(thief.addr, address(till), call, error, "44: what was never sent is not given back");
        Payment memory forged = _payment(thief, buyer.addr, PRICE, "nonce");
        call = abi.encodeCall(ITill.recover, (quote, forged, _named(key, forged)));
        error = ITill.Till_WrongSignature.selector;
        _refused(thief.addr, address(till), call, error, "44: what nobody signed is not given back");
    }

    function test_Attack44_AnAwardStaysThePayers() public {
        till.pay(quote, _payment(buyer, "nonce"));
        SignedReceipt memory job = _job(_sessionTerms(), 1, 400);
        (bool isProven,) = address(court).call(_proofOfTwo(_sessionTerms(), job));
        assertTrue(isProven);
        // The guilty node has the award paid, and wants it back with a transfer that it voided.
        court.payAward(job.receipt.orderHash);
        _cancel(thief, "nonce");
        vm.warp(quote.payBefore + 1 days);
        till.recover(quote, _payment(thief, "nonce"), "");
        assertEq(_balance(thief), FUNDS, "44: an award is no stranded transfer");
        till.takeAwards(quote);
        assertEq(_balance(buyer), FUNDS - PRICE + 800, "44: an award is the payer's");
    }

    function test_Attack52_ARefundIsThePayersWhoeverBegan() public {
        till.pay(quote, _payment(buyer, "nonce"));
        vm.warp(_end());
        vm.prank(thief.addr, thief.addr);
        till.refund(quote);
        assertEq(_balance(thief), FUNDS, "52: whoever sends a refund does not get it");
        assertEq(_balance(buyer), FUNDS, "52: whoever paid gets the refund");
    }
}
