// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// What a quote to somebody without an account says, and how it is paid.

/// @notice One job at one price, payable by a plain EIP-3009 transfer. The address of its receiver follows from it.
/// @param nodeId The only node that can earn from the payment.
/// @param offerHash Digest of the offer that prices the job.
/// @param requestHash The request, as the order will name it: keccak-256 of 0x00, a secret salt and the payload.
/// @param key Signs the session's order and voucher; the gateway holds it.
/// @param amount Atoms: the most the job may cost, all of it set aside.
/// @param payBefore First second at which the payment opens no session any more.
/// @param expiresAt First second at which the session takes no more orders.
/// @param salt Makes otherwise equal quotes distinct.
struct Quote {
    uint32 nodeId;
    bytes32 offerHash;
    bytes32 requestHash;
    address key;
    uint128 amount;
    uint48 payBefore;
    uint48 expiresAt;
    bytes32 salt;
}

/// @notice The key's word for who it was that paid a quote. Signed by the key.
/// @param quoteHash Struct hash of the quote.
/// @param from Whose tokens the receiver got.
/// @param nonce Of the authorization that moved them.
struct Payer {
    bytes32 quoteHash;
    address from;
    bytes32 nonce;
}

/// @notice An EIP-3009 `TransferWithAuthorization` to a quote's receiver.
/// @param from Payer, who signed.
/// @param value Atoms.
/// @param validAfter Unix seconds, exclusive.
/// @param validBefore Unix seconds, exclusive.
/// @param nonce Any 32 bytes that the payer has not used.
/// @param signature 65 bytes, or whatever the payer's contract accepts.
struct Payment {
    address from;
    uint256 value;
    uint256 validAfter;
    uint256 validBefore;
    bytes32 nonce;
    bytes signature;
}

/// @title EIP-712 struct hashes of quotes
/// @notice Quotes and payers are signed in the escrow's domain, transfers in the token's.
/// @dev Every struct is static, so the ABI encoding of type hash and struct is EIP-712's `encodeData`.
library Quotes {
    bytes32 internal constant QUOTE_TYPEHASH = keccak256(
        "Quote(uint32 nodeId,bytes32 offerHash,bytes32 requestHash,address key,uint128 amount,uint48 payBefore,"
        "uint48 expiresAt,bytes32 salt)"
    );
    bytes32 internal constant PAYER_TYPEHASH = keccak256("Payer(bytes32 quoteHash,address from,bytes32 nonce)");
    bytes32 internal constant TRANSFER_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );

    function hash(Quote memory quote) internal pure returns (bytes32) {
        return keccak256(abi.encode(QUOTE_TYPEHASH, quote));
    }

    function hash(Payer memory payer) internal pure returns (bytes32) {
        return keccak256(abi.encode(PAYER_TYPEHASH, payer));
    }

    function hash(Payment calldata payment, address to) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                TRANSFER_TYPEHASH,
                payment.from,
                to,
                payment.value,
                payment.validAfter,
                payment.validBefore,
                payment.nonce
            )
        );
    }
}
