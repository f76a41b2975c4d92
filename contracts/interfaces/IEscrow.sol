// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Claim, SignedReceipt} from "./../types/Claims.sol";
import {Key, KeyCaps} from "./../types/Keys.sol";
import {KeyGrant, Open} from "./../types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "./../types/Sessions.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IReceiptReader} from "./IReceiptReader.sol";

/// @title The only holder of buyers' money
/// @notice A buyer deposits into one account. A session moves part of it aside for one node. A voucher, signed by the
/// session's key, turns part of a session into earnings of that node; without a voucher the node claims what it has
/// receipts for. What is left returns to the account. A buyer may let keys move money into sessions, inside caps.
/// Every amount is in atoms of `TOKEN`. Signatures are EIP-712 in the domain ("Wattline", "1", chain, this contract),
/// plain ECDSA with low `s` in 65 or 64 bytes; a buyer that is a contract answers by ERC-1271 instead, with
/// `CONTRACT_SIGNATURE_GAS` gas.
/// Handing in a message a second time changes nothing.
/// @dev Assumes:
/// safety: the token is a plain ERC-20 — no fee on transfer, no rebasing, balances move only by transfer — and
/// `REGISTRY` and `COURT` are the contracts that name this escrow. A token that calls back is harmless: state is
/// written first.
/// liveness: the token lets the escrow send to whoever withdraws or collects; blocks keep coming. A receiver that the
/// token refuses blocks its own money only.
/// Views read inside a token's callback may be ahead of the token's own balances.
interface IEscrow {
    // ------------------------------------------------------------------------------------------------ events

    /// @notice Tokens arrived in an account.
    /// @param buyer Whose account.
    /// @param amount Atoms.
    event Deposited(address indexed buyer, uint128 amount);

    /// @notice Money of an account left the escrow.
    /// @param buyer Whose account.
    /// @param to Who received it.
    /// @param amount Atoms.
    event Withdrawn(address indexed buyer, address to, uint128 amount);

    /// @notice Money of an account was set aside for a node.
    /// @param sessionId Digest of the terms.
    /// @param buyer Whose account.
    /// @param nodeId The only node that can earn it.
    /// @param key Signs the session's orders and vouchers.
    /// @param amount Atoms.
    /// @param expiresAt Unix seconds; vouchers settle for `GRACE_SECONDS` longer.
    /// @param keyEpoch The node's key epoch, for receipts and closing consents.
    event SessionOpened(
        bytes32 indexed sessionId,
        address indexed buyer,
        uint32 indexed nodeId,
        address key,
        uint128 amount,
        uint48 expiresAt,
        uint16 keyEpoch
    );

    /// @notice More money of the account was set aside for the same session.
    /// @param sessionId Session that grew.
    /// @param added Atoms taken from the account.
    /// @param deposited Atoms in total since the session opened.
    event SessionToppedUp(bytes32 indexed sessionId, uint128 added, uint128 deposited);

    /// @notice A voucher became earnings of the session's node.
    /// @param sessionId Session that paid, as the voucher named it: its first 24 bytes are right.
    /// @param throughSeq Every order up to here has ended.
    /// @param paid Atoms in total since the session opened, not the increase.
    /// @param receiptsRoot Merkle root over the receipts that were paid.
    event VoucherSettled(bytes32 indexed sessionId, uint32 throughSeq, uint128 paid, bytes32 receiptsRoot);

    /// @notice Vouchers of one batch became earnings of their sessions' nodes.
    /// @param key Signed the batch.
    /// @param receiptsRoot Merkle root over the receipt roots of all the batch's sessions, skipped ones too.
    /// @param vouchers Those that were settled, packed as they were signed: first 24 bytes of the session id,
    /// throughSeq (4 bytes) and atoms in total since the session opened (8 bytes).
    event BatchSettled(address indexed key, bytes32 receiptsRoot, bytes vouchers);

    /// @notice A voucher changed nothing.
    /// @param sessionId As the item named it, its last 8 bytes 0 in a batch; there may be no such session.
    /// @param status The reason; never `Settled`.
    event VoucherSkipped(bytes32 indexed sessionId, SettleStatus status);

    /// @notice A session ended, by consent or by time.
    /// @param sessionId Session that ended.
    /// @param paid Atoms the node earned from it so far.
    /// @param returned Atoms that went back to the account. `paid`, this and what is claimed and not decided are all
    /// that was deposited.
    event SessionClosed(bytes32 indexed sessionId, uint128 paid, uint128 returned);

    /// @notice A key may move money of an account into sessions.
    /// @param buyer Whose account.
    /// @param key Who may.
    /// @param nonce Number of the grant.
    /// @param perSession Most atoms that one session may hold.
    /// @param perDay Most atoms a day.
    /// @param total Most atoms under this grant.
    /// @param expiresAt Unix seconds.
    /// @param nodesRoot Merkle root over node ids. 0: any node.
    event KeySet(
        address indexed buyer,
        address indexed key,
        uint64 nonce,
        uint128 perSession,
        uint128 perDay,
        uint128 total,
        uint48 expiresAt,
        bytes32 nodesRoot
    );

    /// @notice A key may no longer move money of an account.
    /// @param buyer Whose account.
    /// @param key Who may not.
    /// @param nonce Grants up to this number are void.
    event KeyRevoked(address indexed buyer, address indexed key, uint64 nonce);

    /// @notice A node asked to be paid for receipts without a voucher.
    /// @param sessionId Session that is to pay.
    /// @param throughSeq Last order of the claim; orders left out are free.
    /// @param amount Atoms claimed, and locked in the provider's stake.
    /// @param finalAt Unix seconds until which receipts can be disputed.
    /// @param receiptHashes Digests of the receipts, in order of seq.
    event Claimed(
        bytes32 indexed sessionId, uint32 throughSeq, uint128 amount, uint48 finalAt, bytes32[] receiptHashes
    );

    /// @notice A voucher took the place of everything that was claimed and not decided.
    /// @param sessionId Session; the last 8 bytes are 0 when a batch did it.
    /// @param amount Atoms no longer claimed, held ones too.
    event ClaimReplaced(bytes32 indexed sessionId, uint128 amount);

    /// @notice The undisputed part of a claim became earnings of the session's node, or nothing of it was undisputed.
    /// @param sessionId Session that paid.
    /// @param throughSeq Every order up to here has ended, but those that are held.
    /// @param amount Atoms earned by this.
    /// @param paid Atoms in total since the session opened.
    event ClaimFinalised(bytes32 indexed sessionId, uint32 throughSeq, uint128 amount, uint128 paid);

    /// @notice A claimed receipt is disputed.
    /// @param sessionId Session.
    /// @param receiptHash Digest of the receipt.
    /// @param amount Atoms that wait for the court.
    event ClaimHeld(bytes32 indexed sessionId, bytes32 indexed receiptHash, uint128 amount);

    /// @notice The court decided about money of a disputed receipt.
    /// @param sessionId Session.
    /// @param amount Atoms decided about.
    /// @param isPaid Whether the node earned them; otherwise they are the buyer's again.
    event ClaimResolved(bytes32 indexed sessionId, uint128 amount, bool isPaid);

    /// @notice Another address settles for a node.
    /// @param nodeId Node.
    /// @param settler Only address that may settle for it from now on.
    event SettlerSet(uint32 indexed nodeId, address settler);

    /// @notice Earnings of a node were paid out.
    /// @param nodeId Node that had earned them.
    /// @param to The node's owner.
    /// @param amount Atoms sent to the owner.
    /// @param fee Atoms kept as fee.
    event Collected(uint32 indexed nodeId, address indexed to, uint128 amount, uint128 fee);

    /// @notice The fee changes.
    /// @param bps New fee.
    /// @param effectiveAt Unix seconds from which it works; now for a fall.
    event FeeAnnounced(uint16 bps, uint48 effectiveAt);

    /// @notice All fees were paid out.
    /// @param to The treasury.
    /// @param amount Atoms.
    event FeesWithdrawn(address to, uint128 amount);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice Moving nothing is a mistake.
    error Escrow_ZeroAmount();
    /// @notice Neither 0 nor the escrow itself can be this address: money sent there would be lost.
    error Escrow_WrongAddress(address got);
    /// @notice The token moved `got` atoms instead of `limit`: it is not a plain ERC-20.
    error Escrow_WrongDelta(uint256 got, uint256 limit);
    /// @notice More than the account holds.
    error Escrow_AboveAccount(uint128 got, uint128 limit);
    /// @notice A session's slot holds 64-bit amounts; nothing is ever truncated.
    error Escrow_AmountTooLarge(uint128 got, uint128 limit);
    /// @notice One signature per message, empty or not.
    error Escrow_LengthMismatch(uint256 got, uint256 limit);
    /// @notice The message was to be opened before `limit`.
    error Escrow_OpenedTooLate(uint256 got, uint256 limit);
    /// @notice The session is over since `limit`.
    error Escrow_SessionOver(uint256 got, uint256 limit);
    /// @notice The session would outlast `limit`, the longest allowed from now.
    error Escrow_SessionTooLong(uint256 got, uint256 limit);
    /// @notice The session's money can be returned from `limit` on.
    error Escrow_TooEarly(uint256 got, uint256 limit);
    /// @notice No such node, or its provider has too little stake.
    error Escrow_NotServing(uint32 nodeId);
    /// @notice A session needs a key.
    error Escrow_ZeroKey();
    /// @notice Signed by `got` (0: malformed or high `s`) instead of `limit`.
    error Escrow_WrongSigner(address got, address limit);
    /// @notice No session has this id.
    error Escrow_UnknownSession(bytes32 sessionId);
    /// @notice The session was closed before.
    error Escrow_SessionClosed(bytes32 sessionId);
    /// @notice Less is settled than the node's consent asks for.
    error Escrow_PaidTooLittle(uint128 got, uint128 limit);
    /// @notice The key's grant ended at `limit`; 0: there is none.
    error Escrow_KeyExpired(uint256 got, uint256 limit);
    /// @notice One session of this key may not hold so much.
    error Escrow_AboveSessionCap(uint256 got, uint256 limit);
    /// @notice The key may not move so much on one day.
    error Escrow_AboveDayCap(uint256 got, uint256 limit);
    /// @notice The key may not move so much under its grant.
    error Escrow_AboveTotalCap(uint256 got, uint256 limit);
    /// @notice The key's grant does not list this node, or the proof behind the signature is not the list's.
    error Escrow_NodeNotAllowed(uint32 nodeId);
    /// @notice The grant was to be handed in before `limit`.
    error Escrow_GrantTooLate(uint256 got, uint256 limit);
    /// @notice A batch's vouchers are 36 bytes each.
    error Escrow_WrongBatch(uint256 got, uint256 limit);
    /// @notice Only the node's settler may call.
    error Escrow_NotSettler(address got, address limit);
    /// @notice A claim on the session is not decided yet.
    error Escrow_ClaimPending(bytes32 sessionId);
    /// @notice The session has no claim that waits for its window.
    error Escrow_NoClaim(bytes32 sessionId);
    /// @notice More is claimed than the session has left.
    error Escrow_AboveSession(uint256 got, uint256 limit);
    /// @notice The receipt is not among those of the claim.
    error Escrow_NotClaimed(bytes32 receiptHash);
    /// @notice Only the court may call.
    error Escrow_NotCourt(address got, address limit);
    /// @notice Vouchers and claims count for at most 72 hours after a session.
    error Escrow_WrongGrace(uint32 got, uint32 limit);
    /// @notice The challenge window is at least a minute.
    error Escrow_WrongChallenge(uint32 got, uint32 limit);
    /// @notice Only the registry may call.
    error Escrow_NotRegistry(address got, address limit);
    /// @notice Only the treasury may call.
    error Escrow_NotTreasury(address got, address limit);
    /// @notice The fee has a ceiling.
    error Escrow_FeeTooHigh(uint16 got, uint16 limit);
    /// @notice Sessions last from 1 second to 72 hours.
    error Escrow_WrongMaxSession(uint32 got, uint32 limit);

    // ----------------------------------------------------------------------------------------------- account

    /// @notice Moves the caller's tokens into the caller's account. Needs an allowance.
    /// @param amount Atoms, more than 0; exactly these must arrive.
    function deposit(uint128 amount) external;

    /// @notice As `deposit`, with the caller's EIP-2612 permit in place of an allowance. A permit that was spent before
    /// is no error if the allowance is there.
    /// @param amount Atoms, more than 0.
    /// @param deadline As signed in the permit.
    /// @param v Of the permit's signature.
    /// @param r Of the permit's signature.
    /// @param s Of the permit's signature.
    function depositWithPermit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Moves tokens into the account of whoever signed an EIP-3009 `receiveWithAuthorization` to this contract.
    /// Anyone may send it; the buyer needs no gas. An authorization works once.
    /// @param from Buyer, who signed.
    /// @param amount Atoms, more than 0.
    /// @param validAfter As signed.
    /// @param validBefore As signed.
    /// @param nonce As signed.
    /// @param signature 65 bytes of an account without code; otherwise whatever the token takes.
    function depositWithAuthorization(
        address from,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;

    /// @notice Sends money of the caller's account away, at once.
    /// @param amount Atoms, more than 0, at most what the account holds.
    /// @param to Any address but 0 and the escrow.
    function withdraw(uint128 amount, address to) external;

    // -------------------------------------------------------------------------------------------------- keys

    /// @notice Lets a key move money of the caller's account into sessions, in place of what it was let before.
    /// What it has moved today still counts; what it has moved in total starts at 0.
    /// @param key Plain ECDSA key, not 0.
    /// @param caps Its caps; amounts below 2^64.
    function setKey(address key, KeyCaps calldata caps) external;

    /// @notice As `setKey`, by the buyer's signature. Anyone may send it. A grant whose nonce is not above the newest
    /// seen changes nothing.
    /// @param grant Signed terms; now < `validUntil`.
    /// @param signature By the buyer.
    function setKeyBySig(KeyGrant calldata grant, bytes calldata signature) external;

    /// @notice Takes all of that from a key of the caller at once. Its open sessions stay. Skips 65,536 nonces, so that
    /// no grant signed ahead brings it back.
    /// @param key Any address.
    function revokeKey(address key) external;

    // ---------------------------------------------------------------------------------------------- sessions

    /// @notice Moves money from accounts into sessions: all of them or none. Anyone may send it.
    /// A session that exists already, open or closed, is passed over silently; nothing else about it is looked at.
    /// @param opens Terms. `amount` more than 0 and below 2^64; `key` not 0; now < `openBefore`;
    /// now < `expiresAt` ≤ now + `MAX_SESSION_SECONDS`; the node serves.
    /// @param signatures One per session, by its buyer or its key; empty when either is the caller. A key whose grant
    /// lists nodes appends the list's proof to its signature, 32 bytes a step.
    function open(Open[] calldata opens, bytes[] calldata signatures) external;

    /// @notice As `open`, for one session.
    /// @param terms As in `open`.
    /// @param signature As in `open`.
    function openOneSession(Open calldata terms, bytes calldata signature) external;

    /// @notice Raises what an open session holds. Anyone may send it. Not above what it holds: nothing happens.
    /// @param terms The session's terms, as opened.
    /// @param deposited Atoms in total since the session opened, below 2^64.
    /// @param signature Of `TopUp`, as in `open`.
    function topUp(Open calldata terms, uint128 deposited, bytes calldata signature) external;

    /// @notice Turns vouchers into earnings of the caller's nodes, while now < `expiresAt` + `GRACE_SECONDS`.
    /// A bad item is skipped with `VoucherSkipped` and changes nothing for the others. Only the settler of a node may
    /// settle for it, so that no buyer can wave unpaid work away with a voucher of its own.
    /// While a claim is open, only a voucher that reaches at least as far settles. It pays every order up to its own,
    /// however that was to be paid, so it takes the place of all that is claimed, disputed receipts too.
    /// @param items Vouchers, in any order; neighbours of the same node are cheapest.
    function settle(SettleItem[] calldata items) external;

    /// @notice As `settle`, sent by anyone with the settler's signature.
    /// @param items As in `settle`.
    /// @param signature Of `Settlement` over `items`; counts as a call by whoever signed, and settles nothing when that
    /// is nobody.
    function settleFor(SettleItem[] calldata items, bytes calldata signature) external;

    /// @notice As `settle`, for many sessions of one key under one signature.
    /// @param vouchers 36 bytes each: first 24 bytes of the session id, throughSeq (4 bytes), amount (8 bytes).
    /// @param receiptsRoot Merkle root over the sessions' receipt roots, in the order of `vouchers`.
    /// @param r First half of the key's signature of `VoucherBatch`.
    /// @param vs Second half, as EIP-2098.
    function settleBatch(bytes calldata vouchers, bytes32 receiptsRoot, bytes32 r, bytes32 vs) external;

    /// @notice Ends a session with its node's consent and returns the rest to the buyer's account. Anyone may send it.
    /// A session that is closed already stays as it is; one with a claim cannot be closed.
    /// @param terms The session's terms, as opened.
    /// @param minPaid Atoms that must have been settled, as the node signed.
    /// @param nodeSignature Of `Close`, by the node's key of the session's epoch.
    function close(Open calldata terms, uint128 minPaid, bytes calldata nodeSignature) external;

    /// @notice Ends sessions from `expiresAt` + `GRACE_SECONDS` on and returns the rest to their accounts. Anyone may
    /// call. Unknown and closed sessions are passed over; one that is too early reverts the whole call. What is claimed
    /// and not decided stays behind.
    /// @param terms The sessions' terms, as opened.
    function expire(Open[] calldata terms) external;

    // ------------------------------------------------------------------------------------------------ claims

    /// @notice Claims receipts that no voucher paid, while now < `expiresAt` + `GRACE_SECONDS`. Node's settler only.
    /// Locks as much of the provider's free stake. One claim waits at a time.
    /// @param terms The session's terms, as opened.
    /// @param receipts Jobs in ascending order of seq, all behind what is settled. Those left out are free.
    function claim(Open calldata terms, SignedReceipt[] calldata receipts) external;

    /// @notice Pays the undisputed part of a claim from `finalAt` on. Anyone may call.
    /// @param terms The session's terms, as opened.
    function finalise(Open calldata terms) external;

    /// @notice Holds a receipt of a claim back, before `finalAt`. Court only.
    /// @param sessionId Session.
    /// @param key Its key.
    /// @param receiptHash Digest of the receipt.
    /// @param amount Atoms of the receipt.
    /// @param receiptHashes All of the claim.
    function hold(
        bytes32 sessionId,
        address key,
        bytes32 receiptHash,
        uint64 amount,
        bytes32[] calldata receiptHashes
    ) external;

    /// @notice Decides about money that is still held: that `replaced` of the claim is what it was. Court only.
    /// @param sessionId Session.
    /// @param key Its key.
    /// @param buyer Its buyer.
    /// @param amount Atoms, more than 0, at most what is held.
    /// @param isPaid Whether the node earns them.
    function resolve(bytes32 sessionId, address key, address buyer, uint64 amount, bool isPaid) external;

    // -------------------------------------------------------------------------------------------------- nodes

    /// @notice Sends nodes' earnings, less the fee, to their owners. Anyone may call; a node without earnings is passed
    /// over. The fee rounds down, in the node's favour.
    /// @param nodeIds Nodes to pay out.
    function collect(uint32[] calldata nodeIds) external;

    /// @notice Sets who may settle for a node. Registry only.
    /// @param nodeId Node.
    /// @param settler 0: nobody.
    function setSettler(uint32 nodeId, address settler) external;

    /// @notice Sets who owns a node and under which key epoch its sessions open. Registry only.
    /// @param nodeId Node.
    /// @param owner The provider; never changes.
    /// @param epoch Newest key epoch.
    /// @param serves Whether the provider's stake suffices.
    function setNode(uint32 nodeId, address owner, uint16 epoch, bool serves) external;

    /// @notice Sets whether nodes take sessions. Registry only.
    /// @param nodeIds Nodes of one provider.
    /// @param serves Whether the provider's stake suffices.
    function setServing(uint32[] calldata nodeIds, bool serves) external;

    // --------------------------------------------------------------------------------------------------- fee

    /// @notice Changes the fee: a rise works 7 days from now, a fall at once. Replaces what was announced before.
    /// Treasury only. A rise reaches earnings that are not collected by then.
    /// @param bps Of what is collected, at most 500.
    function announceFee(uint16 bps) external;

    /// @notice Sends all collected fees to the treasury. Anyone may call; without fees nothing happens.
    function withdrawFees() external;

    // ------------------------------------------------------------------------------------------------- views

    /// @notice Money of a buyer that is promised to nobody.
    /// @param buyer Any address.
    /// @return Atoms.
    function accountOf(address buyer) external view returns (uint128);

    /// @notice A session.
    /// @param sessionId Digest of its `Open`.
    /// @param key Key of its `Open`; under another key there is nothing.
    /// @return All zero when there is no such session.
    function session(bytes32 sessionId, address key) external view returns (Session memory);

    /// @notice Money of a session that is claimed and not decided.
    /// @param sessionId Digest of its `Open`.
    /// @return `pending` and `held` are 0 when nothing is; the rest is then of the last claim.
    function claimOf(bytes32 sessionId) external view returns (Claim memory);

    /// @notice What a key may do with a buyer's account, and what it did.
    /// @param buyer Any address.
    /// @param key Any address.
    /// @return `expiresAt` is 0 when it may do nothing.
    function keyOf(address buyer, address key) external view returns (Key memory);

    /// @notice The id of a session with these terms, whether it exists or not.
    /// @param terms Any terms.
    /// @return EIP-712 digest, domain included.
    function sessionIdOf(Open calldata terms) external view returns (bytes32);

    /// @notice A node's side of the escrow.
    /// @param nodeId Any number.
    /// @return settler Who may settle for it. 0: nobody.
    /// @return earnings Atoms to be collected, before the fee.
    function nodeAccount(uint32 nodeId) external view returns (address settler, uint96 earnings);

    /// @notice Whether a session can open with a node, and under which key epoch.
    /// @param nodeId Any number.
    /// @return ok False for a node that does not exist, too.
    /// @return epoch Newest key epoch.
    function serving(uint32 nodeId) external view returns (bool ok, uint16 epoch);

    /// @notice Fee on what is collected now.
    /// @return Basis points.
    function feeBps() external view returns (uint16);

    /// @notice Fees not yet withdrawn.
    /// @return Atoms.
    function fees() external view returns (uint128);

    /// @notice Token that the escrow holds.
    /// @return A plain ERC-20.
    function TOKEN() external view returns (IERC20);

    /// @notice Registry whose nodes can earn here.
    /// @return Node registry.
    function REGISTRY() external view returns (INodeRegistry);

    /// @notice Checks the receipts of claims; made by the escrow when it was deployed.
    /// @return Receipt reader.
    function RECEIPTS() external view returns (IReceiptReader);

    /// @notice Decides about disputed receipts.
    /// @return Court.
    function COURT() external view returns (address);

    /// @notice Receives the fees.
    /// @return Address.
    function TREASURY() external view returns (address);

    /// @notice Longest time from opening a session to its `expiresAt`.
    /// @return Seconds, at most 72 hours.
    function MAX_SESSION_SECONDS() external view returns (uint32);

    /// @notice Time after `expiresAt` in which vouchers still settle.
    /// @return Seconds.
    function GRACE_SECONDS() external view returns (uint32);

    /// @notice Time in which the receipts of a claim can be disputed.
    /// @return Seconds.
    function CHALLENGE_SECONDS() external view returns (uint32);

    /// @notice Gas that a buyer's contract gets to check a signature.
    /// @return Gas units.
    function CONTRACT_SIGNATURE_GAS() external view returns (uint256);

    /// @notice EIP-712 domain separator of this chain and contract.
    /// @return Recomputed when the chain id changes.
    function DOMAIN_SEPARATOR() external view returns (bytes32);
}
