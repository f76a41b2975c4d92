// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// What parties sign. Money is in atoms, times ending `Ms` are Unix milliseconds, other times Unix seconds,
// upper ends exclusive, energy is millijoules. The EIP-712 digest of `Open` is the session's id.

/// @notice A node's price list for one model. Signed by the node.
/// @param nodeId Node that sells.
/// @param modelId keccak-256 of the canonical model manifest.
/// @param pricePerJob Atoms per job. 0: no base price.
/// @param priceInPerMillion Atoms per million input units. 0: input is free.
/// @param priceOutPerMillion Atoms per million output units. 0: output is free.
/// @param maxLatencyMs Milliseconds from issue to finish before the discount applies. 0: no latency promise.
/// @param lateDiscountBps Part of the price dropped when late; above 10,000 counts as 10,000.
/// @param maxMillijoulesPerMillionOut Energy promise per million output units. 0: none.
/// @param validUntil First second at which the offer no longer stands.
/// @param salt Makes otherwise equal offers distinct.
struct Offer {
    uint32 nodeId;
    bytes32 modelId;
    uint128 pricePerJob;
    uint128 priceInPerMillion;
    uint128 priceOutPerMillion;
    uint32 maxLatencyMs;
    uint16 lateDiscountBps;
    uint64 maxMillijoulesPerMillionOut;
    uint48 validUntil;
    bytes32 salt;
}

/// @notice Lets a key open and top up sessions from the buyer's account. Signed by the buyer.
/// Amounts of a key are below 2^64; 0 allows nothing.
/// @param buyer Account that pays.
/// @param key Plain ECDSA key that signs sessions, orders and vouchers. Never 0.
/// @param perSession Most atoms that one session may hold.
/// @param perDay Most atoms that move into sessions on one day (Unix time divided by 86,400, rounded down).
/// @param total Most atoms that move into sessions under this grant. What returns restores nothing.
/// @param expiresAt First second at which the key can no longer move money.
/// @param nodesRoot Merkle root over the ids of nodes that may be paid. 0: any node.
/// @param nonce Above every nonce that the contract has seen for this buyer and key.
/// @param validUntil First second at which the grant can no longer be handed in.
struct KeyGrant {
    address buyer;
    address key;
    uint128 perSession;
    uint128 perDay;
    uint128 total;
    uint48 expiresAt;
    bytes32 nodesRoot;
    uint32 nonce;
    uint48 validUntil;
}

/// @notice Sets money of a buyer's account aside for one node. Signed by the buyer or, inside its caps, by the key.
/// @param buyer Account that pays.
/// @param key Signs the session's orders and vouchers. Never 0.
/// @param nodeId The only node that can earn from the session.
/// @param amount Atoms set aside at first; more can follow by `TopUp`.
/// @param openBefore First second at which the session can no longer be opened.
/// @param expiresAt First second at which the session takes no more orders.
/// @param salt Makes otherwise equal sessions distinct.
struct Open {
    address buyer;
    address key;
    uint32 nodeId;
    uint128 amount;
    uint48 openBefore;
    uint48 expiresAt;
    bytes32 salt;
}

/// @notice Raises what a session holds. Signed by the buyer or, inside its caps, by the session's key.
/// @param sessionId Digest of the session's `Open`.
/// @param deposited Atoms set aside in total since the session opened, not the increase.
struct TopUp {
    bytes32 sessionId;
    uint128 deposited;
}

/// @notice Asks for one job. Signed by the session's key before the work.
/// @param sessionId Session that pays.
/// @param seq Position in the session, from 1.
/// @param offerHash Digest of the offer that prices the job.
/// @param requestHash keccak-256 of 0x00, salt and payload.
/// @param maxAmount Most atoms the job may cost.
/// @param issuedAtMs When the key signed.
/// @param deadlineMs Last millisecond at which finishing is still billable.
/// @param replyKey X25519 key to which the response is sealed.
struct Order {
    bytes32 sessionId;
    uint32 seq;
    bytes32 offerHash;
    bytes32 requestHash;
    uint128 maxAmount;
    uint64 issuedAtMs;
    uint64 deadlineMs;
    bytes32 replyKey;
}

/// @notice What a node did for an order. Signed by the node after the work, at most once per order.
/// @param orderHash Digest of the order.
/// @param responseHash Merkle root of the response's chunks.
/// @param execHash Digest of the execution annex.
/// @param unitsIn Input units billed.
/// @param unitsOut Output units billed.
/// @param amount Atoms charged. 0: free.
/// @param startedAtMs When the work began, by the node's clock.
/// @param finishedAtMs When the work ended, by the node's clock.
/// @param energyMillijoules Energy used, as attested by the node. 0: not measured.
/// @param status 0 failed, 1 done, 2 cut short.
struct Receipt {
    bytes32 orderHash;
    bytes32 responseHash;
    bytes32 execHash;
    uint64 unitsIn;
    uint64 unitsOut;
    uint128 amount;
    uint64 startedAtMs;
    uint64 finishedAtMs;
    uint64 energyMillijoules;
    uint8 status;
}

/// @notice Accepts and pays every job up to a sequence number. Signed by the session's key.
/// @param sessionId Session that pays.
/// @param throughSeq Every order up to here has ended.
/// @param amount Atoms earned since the session opened, cumulative.
/// @param receiptsRoot Append-only Merkle root over the receipts, from the session's first.
struct Voucher {
    bytes32 sessionId;
    uint32 throughSeq;
    uint128 amount;
    bytes32 receiptsRoot;
}

/// @notice Accepts and pays jobs of many sessions of one key at once. Signed by the key.
/// @param vouchersHash keccak-256 of the packed vouchers, 36 bytes each: first 24 of the session id, throughSeq (4),
/// amount (8).
/// @param receiptsRoot Merkle root over the sessions' receipt roots, in the order of the vouchers.
struct VoucherBatch {
    bytes32 vouchersHash;
    bytes32 receiptsRoot;
}

/// @notice Lets anybody send a settlement in a settler's place. Signed by the settler.
/// @param itemsHash keccak-256 of the ABI-encoded list of items.
struct Settlement {
    bytes32 itemsHash;
}

/// @notice A node's consent to end a session early. Signed by the node's key of the session's epoch.
/// @param sessionId Session to end.
/// @param minPaid Atoms that must have been settled first. 0: ends whatever was paid.
struct Close {
    bytes32 sessionId;
    uint128 minPaid;
}

/// @title EIP-712 type hashes and struct hashes of every message
/// @notice A message is signed over `keccak256(0x1901 ‖ domain ‖ hash(message))`.
/// @dev Every struct is static, so the ABI encoding of type hash and struct is EIP-712's `encodeData`.
library Messages {
    bytes32 internal constant OFFER_TYPEHASH = keccak256(
        "Offer(uint32 nodeId,bytes32 modelId,uint128 pricePerJob,uint128 priceInPerMillion,uint128 priceOutPerMillion,"
        "uint32 maxLatencyMs,uint16 lateDiscountBps,uint64 maxMillijoulesPerMillionOut,uint48 validUntil,bytes32 salt)"
    );
    bytes32 internal constant KEY_GRANT_TYPEHASH = keccak256(
        "KeyGrant(address buyer,address key,uint128 perSession,uint128 perDay,uint128 total,uint48 expiresAt,"
        "bytes32 nodesRoot,uint32 nonce,uint48 validUntil)"
    );
    bytes32 internal constant OPEN_TYPEHASH = keccak256(
        "Open(address buyer,address key,uint32 nodeId,uint128 amount,uint48 openBefore,uint48 expiresAt,bytes32 salt)"
    );
    bytes32 internal constant TOP_UP_TYPEHASH = keccak256("TopUp(bytes32 sessionId,uint128 deposited)");
    bytes32 internal constant ORDER_TYPEHASH = keccak256(
        "Order(bytes32 sessionId,uint32 seq,bytes32 offerHash,bytes32 requestHash,uint128 maxAmount,"
        "uint64 issuedAtMs,uint64 deadlineMs,bytes32 replyKey)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 orderHash,bytes32 responseHash,bytes32 execHash,uint64 unitsIn,uint64 unitsOut,"
        "uint128 amount,uint64 startedAtMs,uint64 finishedAtMs,uint64 energyMillijoules,uint8 status)"
    );
    bytes32 internal constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 sessionId,uint32 throughSeq,uint128 amount,bytes32 receiptsRoot)");
    bytes32 internal constant VOUCHER_BATCH_TYPEHASH =
        keccak256("VoucherBatch(bytes32 vouchersHash,bytes32 receiptsRoot)");
    bytes32 internal constant SETTLEMENT_TYPEHASH = keccak256("Settlement(bytes32 itemsHash)");
    bytes32 internal constant CLOSE_TYPEHASH = keccak256("Close(bytes32 sessionId,uint128 minPaid)");

    function hash(Offer memory offer) internal pure returns (bytes32) {
        return keccak256(abi.encode(OFFER_TYPEHASH, offer));
    }

    function hash(KeyGrant memory grant) internal pure returns (bytes32) {
        return keccak256(abi.encode(KEY_GRANT_TYPEHASH, grant));
    }

    function hash(Open memory terms) internal pure returns (bytes32) {
        return keccak256(abi.encode(OPEN_TYPEHASH, terms));
    }

    function hash(TopUp memory topUp) internal pure returns (bytes32) {
        return keccak256(abi.encode(TOP_UP_TYPEHASH, topUp));
    }

    function hash(Order memory order) internal pure returns (bytes32) {
        return keccak256(abi.encode(ORDER_TYPEHASH, order));
    }

    function hash(Receipt memory receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }

    function hash(Voucher memory voucher) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER_TYPEHASH, voucher));
    }

    function hash(VoucherBatch memory batch) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER_BATCH_TYPEHASH, batch));
    }

    function hash(Settlement memory settlement) internal pure returns (bytes32) {
        return keccak256(abi.encode(SETTLEMENT_TYPEHASH, settlement));
    }

    function hash(Close memory consent) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLOSE_TYPEHASH, consent));
    }
}
