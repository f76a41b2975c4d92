// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IReceiver} from "./interfaces/IReceiver.sol";
import {ITill} from "./interfaces/ITill.sol";
import {ITransferWithAuthorization} from "./interfaces/ITransferWithAuthorization.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Receiver} from "./Receiver.sol";
import {Open} from "./types/Messages.sol";
import {Payer, Payment, Quote, Quotes} from "./types/Quotes.sol";

/// @title Till
/// @notice Payments without an account. The prose is in `ITill`.
contract Till is ITill {
    struct Paying {
        address from;
        bytes12 nonceStart; // of its authorization: as much as shares a slot with the address
    }

    uint256 private constant _PLAIN_SIGNATURE_BYTES = 65;

    /// @inheritdoc ITill
    uint256 public constant override RECOVERY_SECONDS = 1 days;

    /// @inheritdoc ITill
    IEscrow public immutable override ESCROW;
    /// @inheritdoc ITill
    IERC20 public immutable override TOKEN;
    /// @inheritdoc ITill
    IReceiver public immutable override RECEIVER;

    // slot 0
    mapping(address receiver => Paying value) private _paid;
    // slot 1: by receiver first, because a nonce can be signed for several of them
    mapping(address receiver => mapping(address from => mapping(bytes32 nonce => bool done))) private _recovered;

    /// @notice Fixes for good where sessions are, and makes the code of all receivers.
    /// @param escrow Deployed before.
    constructor(IEscrow escrow) {
        ESCROW = escrow;
        TOKEN = escrow.TOKEN();
        RECEIVER = new Receiver(escrow);
    }

    /* PAYING */

    /// @inheritdoc ITill
    function pay(Quote calldata quote, Payment calldata payment) external override {
        (bytes32 quoteHash, address receiver) = _made(quote);
        if (_isPaid(receiver, payment.from)) return;
        if (payment.value != quote.amount) revert Till_WrongAmount(payment.value, quote.amount);
        uint256 held = TOKEN.balanceOf(receiver);

        _paid[receiver] = Paying(payment.from, bytes12(payment.nonce));
        emit Paid(receiver, payment.from, quoteHash, quote.amount);

        _transfer(receiver, payment);
        _requireDelta(receiver, held, payment.value);
        IReceiver(receiver).open(_termsOf(quote, quoteHash, receiver));
    }

    /// @inheritdoc ITill
    function payPushed(Quote calldata quote, Payment calldata payment, bytes calldata keySignature) external override {
        (bytes32 quoteHash, address receiver) = _made(quote);
        if (_isPaid(receiver, payment.from)) return;
        if (payment.value != quote.amount) revert Till_WrongAmount(payment.value, quote.amount);
        _requirePushed(receiver, payment);
        _requireNamed(quote.key, quoteHash, payment, keySignature);

        _paid[receiver] = Paying(payment.from, bytes12(payment.nonce));
        emit Paid(receiver, payment.from, quoteHash, quote.amount);

        IReceiver(receiver).open(_termsOf(quote, quoteHash, receiver));
    }

    /* MONEY BACK */

    /// @inheritdoc ITill
    function refund(Quote calldata quote) external override returns (uint128 amount) {
        (bytes32 quoteHash, address receiver) = _of(quote);
        address from = _paid[receiver].from;
        if (from == address(0)) revert Till_NotPaid(receiver);

        if (block.timestamp >= uint256(quote.expiresAt) + ESCROW.GRACE_SECONDS()) {
            Open[] memory ended = new Open[](1);
            ended[0] = _termsOf(quote, quoteHash, receiver);
            ESCROW.expire(ended);
        }
        amount = IReceiver(receiver).withdraw(from);
        if (amount != 0) emit Refunded(receiver, from, amount);
    }

    /// @inheritdoc ITill
    function takeAwards(Quote calldata quote) external override returns (uint64 amount) {
        (, address receiver) = _of(quote);
        address from = _paid[receiver].from;
        if (from == address(0)) revert Till_NotPaid(receiver);

        amount = IReceiver(receiver).takeAwards(from);
        if (amount != 0) emit Awarded(receiver, from, amount);
    }

    /// @inheritdoc ITill
    function recover(Quote calldata quote, Payment calldata payment, bytes calldata keySignature)
        external
        override
        returns (uint256 amount)
    {
        (bytes32 quoteHash, address receiver) = _made(quote);
        if (block.timestamp < quote.payBefore) revert Till_TooEarly(block.timestamp, quote.payBefore);
        if (_isSpent(receiver, payment)) return 0;
        _requirePushed(receiver, payment);
        if (block.timestamp < quote.payBefore + RECOVERY_SECONDS) {
            _requireNamed(quote.key, quoteHash, payment, keySignature);
        }
        amount = Math.min(payment.value, TOKEN.balanceOf(receiver));
        if (amount == 0) return 0;

        _recovered[receiver][payment.from][payment.nonce] = true;
        emit Recovered(receiver, payment.from, amount);

        IReceiver(receiver).giveBack(payment.from, amount);
    }

    /* VIEWS */

    /// @inheritdoc ITill
    function receiverOf(Quote calldata quote) external view override returns (address receiver) {
        (, receiver) = _of(quote);
    }

    /// @inheritdoc ITill
    function sessionIdOf(Quote calldata quote) external view override returns (bytes32) {
        (bytes32 quoteHash, address receiver) = _of(quote);
        return ESCROW.sessionIdOf(_termsOf(quote, quoteHash, receiver));
    }

    /// @inheritdoc ITill
    function payerOf(address receiver) external view override returns (address) {
        return _paid[receiver].from;
    }

    /* HELPERS */

    function _made(Quote calldata quote) private returns (bytes32 quoteHash, address receiver) {
        (quoteHash, receiver) = _of(quote);
        if (receiver.code.length == 0) receiver = Clones.cloneDeterministic(address(RECEIVER), quoteHash);
    }

    function _transfer(address receiver, Payment calldata payment) private {
        ITransferWithAuthorization token = ITransferWithAuthorization(address(TOKEN));
        (address from, uint256 value, bytes32 nonce) = (payment.from, payment.value, payment.nonce);
        bytes calldata signature = payment.signature;
        if (signature.length == _PLAIN_SIGNATURE_BYTES && from.code.length == 0) {
            // The form that every EIP-3009 token has; that for contract wallets is younger.
            (bytes32 r, bytes32 s, uint8 v) = (bytes32(signature), bytes32(signature[32:]), uint8(signature[64]));
            token.transferWithAuthorization(
                from, receiver, value, payment.validAfter, payment.validBefore, nonce, v, r, s
            );
        } else {
            token.transferWithAuthorization(
                from, receiver, value, payment.validAfter, payment.validBefore, nonce, signature
            );
        }
    }

    function _of(Quote calldata quote) private view returns (bytes32 quoteHash, address receiver) {
        quoteHash = Quotes.hash(quote);
        receiver = Clones.predictDeterministicAddress(address(RECEIVER), quoteHash);
    }

    function _isPaid(address receiver, address from) private view returns (bool) {
        address payer = _paid[receiver].from;
        if (payer != address(0) && payer != from) revert Till_PaidAlready(receiver, payer);
        return payer != address(0);
    }

    /// @dev Whether the tokens of an authorization went on already: into the session, or back.
    function _isSpent(address receiver, Payment calldata payment) private view returns (bool) {
        Paying memory paid = _paid[receiver];
        if (paid.from == payment.from && paid.nonceStart == bytes12(payment.nonce)) return true;
        return _recovered[receiver][payment.from][payment.nonce];
    }

    function _requireDelta(address receiver, uint256 before, uint256 amount) private view {
        uint256 afterwards = TOKEN.balanceOf(receiver);
        uint256 delta = afterwards < before ? 0 : afterwards - before;
        if (delta != amount) revert Till_WrongDelta(delta, amount);
    }

    /// @dev Says that `from` signed this transfer and that it is used up; not that it was sent.
    function _requirePushed(address receiver, Payment calldata payment) private view {
        ITransferWithAuthorization token = ITransferWithAuthorization(address(TOKEN));
        bytes32 digest =
            MessageHashUtils.toTypedDataHash(token.DOMAIN_SEPARATOR(), Quotes.hash(payment, receiver));
        if (!SignatureChecker.isValidSignatureNowCalldata(payment.from, digest, payment.signature)) {
            revert Till_WrongSignature(payment.from);
        }
        if (!token.authorizationState(payment.from, payment.nonce)) {
            revert Till_NotUsed(payment.from, payment.nonce);
        }
    }

    function _requireNamed(address key, bytes32 quoteHash, Payment calldata payment, bytes calldata signature)
        private
        view
    {
        bytes32 structHash = Quotes.hash(Payer(quoteHash, payment.from, payment.nonce));
        bytes32 digest = MessageHashUtils.toTypedDataHash(ESCROW.DOMAIN_SEPARATOR(), structHash);
        address signer = Signatures.signerOf(digest, signature);
        if (signer == address(0) || signer != key) revert Till_WrongKey(signer, key);
    }

    /// @dev The salt is the whole quote, so that the session's id commits to offer and request, too.
    function _termsOf(Quote calldata quote, bytes32 quoteHash, address receiver) private pure returns (Open memory) {
        return Open({
            buyer: receiver,
            key: quote.key,
            nodeId: quote.nodeId,
            amount: quote.amount,
            openBefore: quote.payBefore,
            expiresAt: quote.expiresAt,
            salt: quoteHash
        });
    }
}
