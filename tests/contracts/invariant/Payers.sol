// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Payment, Quotes} from "../../../contracts/types/Quotes.sol";
import {Faults} from "./Faults.sol";

/// @title What people without an account do, and whoever sees what they sign
abstract contract Payers is Faults {
    string private constant SENDING =
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)";
    string private constant VOIDING = "cancelAuthorization(address,bytes32,bytes)";
    bytes32 private constant VOIDING_TYPEHASH =
        keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");

    /* PAYING */

    /// @dev Mostly of a quote that nobody paid; it may hold money of others already.
    function pay(uint256 seed) external tried(35) {
        uint256 quote = _rarely(seed ^ 1) ? _paidQuote(seed) : _openQuote(seed);
        uint256 value = uint256(quotes[quote].amount) + (_rarely(seed ^ 2) ? 1 : 0);
        if (_payNow(_sign(quote, _roll(seed, 1) % BUYERS, value))) _done();
    }

    /// @dev Whoever sees a transfer sends it to the token, before the receiver exists or after somebody else paid; or
    /// its signer voids it; or tokens come by a plain transfer.
    function push(uint256 seed) external tried(36) {
        uint256 quote = _roll(seed, 1) % 4 == 0 ? _anyQuote(seed) : _openQuote(seed);
        (uint256 from, uint256 kind) = (_roll(seed, 2) % BUYERS, _roll(seed, 3) % 8);
        uint256 value = kind > 2 ? quotes[quote].amount : _between(_roll(seed, 4), 1, 2 * quotes[quote].amount);
        if (kind == 0) _give(quote, from, value);
        else if (kind == 1) _void(_sign(quote, from, value));
        else _send(_sign(quote, from, value));
        _done();
    }

    function payPushed(uint256 seed) external tried(37) {
        uint256 number = _sent(seed, !_rarely(seed ^ 1));
        Transfer storage transfer = transfers[number];
        QuoteGhost storage quote = quotes[transfer.quote];
        bool isAgain = quote.payer == transfer.from + 1;
        bool isEnough = wallets[PEOPLE + transfer.quote] >= quote.amount;
        bool works = isAgain || (_opens(quote) && transfer.value == quote.amount && isEnough);
        bytes memory data = abi.encodeCall(
            ITill.payPushed, (_quoteOf(transfer.quote), _paymentOf(number), _wordFor(number))
        );
        _do(_anyone(seed), address(till), data, works);
        if (!works) return;
        if (!isAgain) _mOpenPaid(number);
        _keep(STRANGER, address(till), data, true);
        _done();
    }

    /* MONEY BACK */

    function refund(uint256 seed) external tried(38) {
        uint256 number = _paidQuote(seed);
        uint256 end = uint256(quotes[number].expiresAt) + GRACE;
        if (_roll(seed, 1) % 2 == 0 && end < time + 6 hours) _travelTo(_rarely(seed) ? end - 1 : end);
        _refundNow(number);
        _done();
    }

    /// @dev The key's word for what was sent; without it a day later, and then also for what was voided.
    function recover(uint256 seed) external tried(39) {
        uint256 number = _rarely(seed ^ 1) && transfers.length > 0
            ? _roll(seed, 1) % transfers.length
            : _stranded(seed);
        Transfer storage transfer = transfers[number];
        bool isNamed = transfer.state == SENT && _roll(seed, 2) % 4 > 0;
        uint256 since = quotes[transfer.quote].payBefore;
        if (!isNamed && transfer.state != SPENT) since += RECOVERY;
        _travelTo(_rarely(seed ^ 3) ? since - 1 : since);
        bool works = time >= since && transfer.state != SIGNED;
        if (_recoverNow(number, isNamed, works)) _done();
    }

    /// @dev Half the time after a proof about the session's work.
    function takeAwards(uint256 seed) external tried(40) {
        uint256 number = _paidQuote(seed);
        uint256 session = quotes[number].session;
        if (_roll(seed, 1) % 2 == 0 && time < uint256(ghosts[session].expiresAt) + GRACE + CHALLENGE) {
            uint256 job = _pushJob(session, 1, _between(_roll(seed, 2), 1, JOB_MOST), OVERCHARGED);
            if (_proveOf(job, seed)) _payAward(proven[proven.length - 1]);
        }
        _takeAwardsNow(number);
        _done();
    }

    /* STEPS */

    function _sign(uint256 quote, uint256 from, uint256 value) internal returns (uint256 number) {
        number = transfers.length;
        transfers.push(Transfer(uint8(quote), uint8(from), uint64(value), SIGNED));
    }

    /// @dev As it is announced by whoever asks for money: in one call with the session.
    function _payNow(uint256 number) internal returns (bool works) {
        Transfer storage transfer = transfers[number];
        QuoteGhost storage quote = quotes[transfer.quote];
        bool isAgain = quote.payer == transfer.from + 1;
        works = isAgain || (_opens(quote) && transfer.value == quote.amount);
        bytes memory data = abi.encodeCall(ITill.pay, (_quoteOf(transfer.quote), _paymentOf(number)));
        _do(_anyone(number), address(till), data, works);
        if (!works) return false;
        _keep(STRANGER, address(till), data, true);
        if (isAgain) return true;
        _mTransfer(transfer.from, PEOPLE + transfer.quote, transfer.value);
        _mOpenPaid(number);
    }

    function _mOpenPaid(uint256 number) private {
        Transfer storage transfer = transfers[number];
        QuoteGhost storage quote = quotes[transfer.quote];
        uint256 receiver = PEOPLE + transfer.quote;
        _mDeposit(receiver, quote.amount);
        Ghost memory drawn = _drawn(receiver, quote.key, quote.node, quote.amount, 0);
        drawn.expiresAt = quote.expiresAt;
        (quote.payer, quote.session, transfer.state) = (transfer.from + 1, uint32(_push(drawn)), SPENT);
    }

    function _send(uint256 number) internal {
        Transfer storage transfer = transfers[number];
        (Payment memory sent_, address to) = (_paymentOf(number), quotes[transfer.quote].receiver);
        bytes memory data = abi.encodeWithSignature(
            SENDING, sent_.from, to, sent_.value, 0, sent_.validBefore, sent_.nonce, sent_.signature
        );
        _do(_anyone(number), address(token), data, true);
        _keep(STRANGER, address(token), data, false);
        _mTransfer(transfer.from, PEOPLE + transfer.quote, transfer.value);
        transfer.state = SENT;
    }

    function _void(uint256 number) internal {
        Transfer storage transfer = transfers[number];
        (address from, bytes32 nonce) = (people[transfer.from].addr, _nonceOf(number));
        bytes32 digest = _tokenDigest(keccak256(abi.encode(VOIDING_TYPEHASH, from, nonce)));
        bytes memory signature = _signedDigest(_payerSecret(transfer.from), digest);
        _do(STRANGER, address(token), abi.encodeWithSignature(VOIDING, from, nonce, signature), true);
        transfer.state = VOIDED;
    }

    function _give(uint256 quote, uint256 from, uint256 value) private {
        _do(from, address(token), abi.encodeCall(IERC20.transfer, (quotes[quote].receiver, value)), true);
        _mTransfer(from, PEOPLE + quote, value);
        quotes[quote].gifts += value;
    }

    function _refundNow(uint256 number) internal {
        QuoteGhost storage quote = quotes[number];
        Ghost storage ghost = ghosts[quote.session];
        _do(_anyone(number), address(till), abi.encodeCall(ITill.refund, (_quoteOf(number))), true);
        if (!ghost.closed && time >= uint256(ghost.expiresAt) + GRACE) _mReturn(ghost);
        _mWithdrawTo(PEOPLE + number, quote.payer - 1, accounts[PEOPLE + number]);
        _touch(quote.session);
    }

    function _recoverNow(uint256 number, bool isNamed, bool works) internal returns (bool) {
        Transfer storage transfer = transfers[number];
        QuoteGhost storage quote = quotes[transfer.quote];
        bytes memory word = isNamed ? _wordFor(number) : bytes("");
        bytes memory data = abi.encodeCall(ITill.recover, (_quoteOf(transfer.quote), _paymentOf(number), word));
        _do(_anyone(number), address(till), data, works);
        if (!works || transfer.state == SPENT) return works;
        uint256 amount = wallets[PEOPLE + transfer.quote];
        if (transfer.value < amount) amount = transfer.value;
        if (amount == 0) return true;
        if (transfer.state == VOIDED) quote.seized += amount;
        transfer.state = SPENT;
        _mTransfer(PEOPLE + transfer.quote, transfer.from, amount);
        _keep(STRANGER, address(till), data, true);
        return true;
    }

    function _takeAwardsNow(uint256 number) internal {
        uint256 receiver = PEOPLE + number;
        uint256 amount = jurors[receiver].balance;
        _do(_anyone(number), address(till), abi.encodeCall(ITill.takeAwards, (_quoteOf(number))), true);
        _mTakeBack(receiver, amount);
        _mTransfer(receiver, quotes[number].payer - 1, amount);
    }

    /* DRAWS */

    function _anyone(uint256 roll) private view returns (uint256) {
        return (roll % PEOPLE + calls) % PEOPLE;
    }

    function _isOpen(QuoteGhost storage quote) private view returns (bool) {
        return quote.payer == 0 && time < quote.payBefore;
    }

    function _opens(QuoteGhost storage quote) private view returns (bool) {
        return _isOpen(quote) && _serves(quote.node);
    }

    function _anyQuote(uint256 seed) internal returns (uint256) {
        return quotes.length == 0 ? _quoteNew(seed) : _roll(seed, 91) % quotes.length;
    }

    /// @dev One that can still be paid; a new one half the time, and if there is none near the draw.
    function _openQuote(uint256 seed) internal returns (uint256 number) {
        uint256 count = quotes.length;
        bool isFound = false;
        for (uint256 i = 0; i < 8 && i < count && !isFound && seed % 2 == 0; ++i) {
            number = count - 1 - (_roll(seed, 92) % 4 + i) % count;
            isFound = _isOpen(quotes[number]);
        }
        if (!isFound) number = _quoteNew(seed);
        uint256 node = quotes[number].node;
        if (!_serves(node) && !_rarely(seed ^ 5)) _stakeMore(_ownerOf(node), _fullStake(_ownerOf(node)));
    }

    /// @dev One that somebody paid, money of others beside it or not; paid for the purpose if there is none.
    function _paidQuote(uint256 seed) internal returns (uint256 number) {
        uint256 count = quotes.length;
        for (uint256 i = 0; i < 12 && i < count; ++i) {
            number = (_roll(seed, 93) % count + i) % count;
            if (quotes[number].payer != 0) return number;
        }
        number = _quoteNew(seed);
        uint256 owner = _ownerOf(quotes[number].node);
        if (!_serves(quotes[number].node)) _stakeMore(owner, _fullStake(owner));
        _payNow(_sign(number, _roll(seed, 94) % BUYERS, quotes[number].amount));
    }

    /// @dev A transfer that was sent to the token; `isGood`: which can open its session.
    function _sent(uint256 seed, bool isGood) internal returns (uint256 number) {
        uint256 count = transfers.length;
        for (uint256 i = 0; i < 12 && i < count; ++i) {
            number = (_roll(seed, 95) % count + i) % count;
            Transfer storage transfer = transfers[number];
            QuoteGhost storage quote = quotes[transfer.quote];
            if (transfer.state != SENT) continue;
            if (!isGood || (_opens(quote) && transfer.value == quote.amount)) return number;
        }
        uint256 made = _openQuote(seed);
        number = _sign(made, _roll(seed, 96) % BUYERS, quotes[made].amount);
        _send(number);
    }

    /// @dev A transfer whose tokens are in its receiver, or that looks as if they were.
    function _stranded(uint256 seed) internal returns (uint256 number) {
        uint256 count = transfers.length;
        for (uint256 i = 0; i < 16 && i < count; ++i) {
            number = (_roll(seed, 97) % count + i) % count;
            if (transfers[number].state == SENT || transfers[number].state == VOIDED) return number;
        }
        return _sent(seed, true);
    }

    /// @dev Short, as quotes are; one in eight is for a long session.
    function _quoteNew(uint256 seed) internal returns (uint256 number) {
        number = quotes.length;
        if (number == MOST_QUOTES) revert Broken("too many quotes", number, MOST_QUOTES);
        QuoteGhost storage quote = quotes.push();
        (quote.key, quote.node) = (uint8(FIRST_KEY + _roll(seed, 85) % KEYS), uint8(1 + _roll(seed, 86) % NODES));
        quote.amount = uint64(_between(_roll(seed, 87), 1, MOST));
        quote.payBefore = uint40(time + _between(_roll(seed, 88), 1, 1 hours));
        uint256 most = _roll(seed, 89) % 8 == 0 ? MAX_SESSION - 1 hours : 2 hours;
        quote.expiresAt = uint40(quote.payBefore + _between(_roll(seed, 90), 0, most));
        quote.hash = Quotes.hash(_quoteOf(number));
        quote.receiver =
            Clones.predictDeterministicAddress(address(till.RECEIVER()), quote.hash, address(till));
    }
}
