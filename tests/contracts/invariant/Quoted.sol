// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Payer, Payment, Quote, Quotes} from "../../../contracts/types/Quotes.sol";
import {World} from "./World.sol";

/// @title Quotes to people without an account, and the transfers they sign
/// @notice The receiver of a quote is a person like any other buyer, so that its tokens, its account, its session and
/// what the court owes it are in the same books.
abstract contract Quoted is World {
    struct QuoteGhost {
        uint8 key;
        uint8 node;
        uint64 amount;
        uint40 payBefore;
        uint40 expiresAt;
        uint8 payer; // a person plus 1
        uint32 session;
        address receiver;
        bytes32 hash;
        uint256 gifts; // plain transfers: nobody signed for them
        uint256 seized; // went to whoever voided an authorization and came first
    }

    struct Transfer {
        uint8 quote;
        uint8 from;
        uint64 value;
        uint8 state;
    }

    uint256 internal constant MOST_QUOTES = 200; // with all people as many as there are bits for
    uint256 internal constant RECOVERY = 1 days;
    uint8 internal constant SIGNED = 0;
    uint8 internal constant SENT = 1;
    uint8 internal constant VOIDED = 2;
    uint8 internal constant SPENT = 3; // for the session, or gone back
    uint256 private constant TRANSFERS_END = START + 3650 days;

    ITill internal till;
    QuoteGhost[] internal quotes;
    Transfer[] internal transfers;
    bytes32 private tokenDomain;

    constructor() {
        till = ITill(deployCode("Till.sol:Till", abi.encode(address(escrow))));
        tokenDomain = IERC20Permit(address(token)).DOMAIN_SEPARATOR();
    }

    /* WHO IS WHO */

    function _addressOf(uint256 person) internal view override returns (address) {
        return person < PEOPLE ? people[person].addr : quotes[person - PEOPLE].receiver;
    }

    function _isReceiver(uint256 person) internal pure returns (bool) {
        return person >= PEOPLE;
    }

    /// @dev Who can speak for a session's buyer at the court: a receiver cannot.
    function _speaker(Ghost storage ghost, uint256 roll) internal view returns (uint256) {
        return roll % 2 == 0 && !_isReceiver(ghost.buyer) ? ghost.buyer : ghost.key;
    }

    /* WHAT IS SIGNED */

    function _termsOf(Ghost storage ghost) internal view returns (Open memory) {
        return _termsInMemory(ghost);
    }

    function _termsInMemory(Ghost memory ghost) internal view returns (Open memory) {
        if (_isReceiver(ghost.buyer)) return _quoteTerms(ghost.buyer - PEOPLE);
        return Open({
            buyer: people[ghost.buyer].addr,
            key: people[ghost.key].addr,
            nodeId: ghost.node,
            amount: ghost.amount,
            openBefore: ghost.openedAt + 1,
            expiresAt: ghost.expiresAt,
            salt: bytes32(uint256(ghost.serial))
        });
    }

    function _quoteTerms(uint256 number) internal view returns (Open memory) {
        QuoteGhost storage quote = quotes[number];
        return Open({
            buyer: quote.receiver,
            key: people[quote.key].addr,
            nodeId: quote.node,
            amount: quote.amount,
            openBefore: quote.payBefore,
            expiresAt: quote.expiresAt,
            salt: quote.hash
        });
    }

    function _quoteOf(uint256 number) internal view returns (Quote memory) {
        QuoteGhost storage quote = quotes[number];
        return Quote({
            nodeId: quote.node,
            offerHash: offerHashes[quote.node],
            requestHash: keccak256("request"),
            key: people[quote.key].addr,
            amount: quote.amount,
            payBefore: quote.payBefore,
            expiresAt: quote.expiresAt,
            salt: bytes32(number)
        });
    }

    function _paymentOf(uint256 number) internal view returns (Payment memory) {
        Transfer storage transfer = transfers[number];
        return _paymentBy(_payerSecret(transfer.from), number);
    }

    /// @dev Signed by whoever has this secret.
    function _paymentBy(uint256 secret, uint256 number) internal view returns (Payment memory payment) {
        Transfer storage transfer = transfers[number];
        payment.from = people[transfer.from].addr;
        (payment.value, payment.validBefore, payment.nonce) = (transfer.value, TRANSFERS_END, _nonceOf(number));
        bytes32 structHash = keccak256(
            abi.encode(
                Quotes.TRANSFER_TYPEHASH,
                payment.from,
                quotes[transfer.quote].receiver,
                payment.value,
                0,
                TRANSFERS_END,
                payment.nonce
            )
        );
        payment.signature = _signedDigest(secret, _tokenDigest(structHash));
    }

    /// @dev The key's word for who it was that sent a transfer; by an honest key only for one that was sent.
    function _wordFor(uint256 number) internal view returns (bytes memory) {
        return _wordBy(people[quotes[transfers[number].quote].key].secret, number);
    }

    function _wordBy(uint256 secret, uint256 number) internal view returns (bytes memory) {
        Transfer storage transfer = transfers[number];
        Payer memory word = Payer(quotes[transfer.quote].hash, people[transfer.from].addr, _nonceOf(number));
        return _signed(secret, Quotes.hash(word));
    }

    function _payerSecret(uint256 person) internal view returns (uint256) {
        return person == THIEF ? thiefOwner.secret : people[person].secret;
    }

    /// @dev Random, as nonces are.
    function _nonceOf(uint256 number) internal pure returns (bytes32) {
        return keccak256(abi.encode("transfer", number));
    }

    function _tokenDigest(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", tokenDomain, structHash));
    }
}
