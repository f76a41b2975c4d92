// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Open} from "./../types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "./../types/Sessions.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title The only holder of buyers' money
/// @notice A buyer deposits into one account. A session moves part of it aside for one node. A voucher, signed by the
/// session's key, turns part of a session into earnings of that node. What is left returns to the account.
/// Every amount is in atoms of `TOKEN`. Signatures are EIP-712 in the domain ("Wattline", "1", chain, this contract).
/// Handing in a message a second time changes nothing.
/// @dev Assumes:
/// safety: the token is a plain ERC-20 — no fee on transfer, no rebasing, balances move only by transfer — and
/// `REGISTRY` is the registry that names this escrow. A token that calls back is harmless: state is written first.
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

    /// @notice A voucher became earnings of its node.
    /// @param sessionId Session that paid.
    /// @param nodeId Node that earned.
    /// @param throughSeq Every order up to here has ended.
    /// @param paid Atoms in total since the session opened, not the increase.
    /// @param receiptsRoot Merkle root over the receipts that were paid.
    event VoucherSettled(
        bytes32 indexed sessionId, uint32 indexed nodeId, uint32 throughSeq, uint128 paid, bytes32 receiptsRoot
    );

    /// @notice A voucher changed nothing.
    /// @param sessionId As the item named it; there may be no such session.
    /// @param status The reason; never `Settled`.
    event VoucherSkipped(bytes32 indexed sessionId, SettleStatus status);

    /// @notice A session ended, by consent or by time.
    /// @param sessionId Session that ended.
    /// @param paid Atoms the node earned from it.
    /// @param returned Atoms that went back to the account. `paid` and this are all that was deposited.
    event SessionClosed(bytes32 indexed sessionId, uint128 paid, uint128 returned);

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

    /// @notice Sends money of the caller's account away, at once.
    /// @param amount Atoms, more than 0, at most what the account holds.
    /// @param to Any address but 0 and the escrow.
    function withdraw(uint128 amount, address to) external;

    // ---------------------------------------------------------------------------------------------- sessions

    /// @notice Moves money from accounts into sessions: all of them or none. Anyone may send it.
    /// A session that exists already, open or closed, is passed over silently; nothing else about it is looked at.
    /// @param opens Terms. `amount` more than 0 and below 2^64; `key` not 0; now < `openBefore`;
    /// now < `expiresAt` ≤ now + `MAX_SESSION_SECONDS`; the node serves.
    /// @param signatures One per session, by its buyer; empty when the buyer is the caller.
    /// @return sessionIds In the order of `opens`.
    function open(Open[] calldata opens, bytes[] calldata signatures) external returns (bytes32[] memory sessionIds);

    /// @notice Raises what an open session holds. Anyone may send it. Not above what it holds: nothing happens.
    /// @param terms The session's terms, as opened.
    /// @param deposited Atoms in total since the session opened, below 2^64.
    /// @param signature Of `TopUp`, by the buyer; empty when the buyer is the caller.
    function topUp(Open calldata terms, uint128 deposited, bytes calldata signature) external;

    /// @notice Turns vouchers into earnings of the caller's nodes, while now < `expiresAt` + `GRACE_SECONDS`.
    /// A bad item is skipped with `VoucherSkipped` and changes nothing for the others. Only the settler of a node may
    /// settle for it, so that no buyer can wave unpaid work away with a voucher of its own.
    /// @param items Vouchers, in any order; neighbours of the same node are cheapest.
    function settle(SettleItem[] calldata items) external;

    /// @notice Ends a session with its node's consent and returns the rest to the buyer's account. Anyone may send it.
    /// A session that is closed already stays as it is.
    /// @param terms The session's terms, as opened.
    /// @param minPaid Atoms that must have been settled, as the node signed.
    /// @param nodeSignature Of `Close`, by the node's key of the session's epoch.
    function close(Open calldata terms, uint128 minPaid, bytes calldata nodeSignature) external;

    /// @notice Ends sessions from `expiresAt` + `GRACE_SECONDS` on and returns the rest to their accounts. Anyone may
    /// call. Unknown and closed sessions are passed over; one that is too early reverts the whole call.
    /// @param terms The sessions' terms, as opened.
    function expire(Open[] calldata terms) external;

    // -------------------------------------------------------------------------------------------------- nodes

    /// @notice Sends nodes' earnings, less the fee, to their owners. Anyone may call; a node without earnings is passed
    /// over. The fee rounds down, in the node's favour.
    /// @param nodeIds Nodes to pay out.
    function collect(uint32[] calldata nodeIds) external;

    /// @notice Sets who may settle for a node. Registry only.
    /// @param nodeId Node.
    /// @param settler 0: nobody.
    function setSettler(uint32 nodeId, address settler) external;

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

    /// @notice The id of a session with these terms, whether it exists or not.
    /// @param terms Any terms.
    /// @return EIP-712 digest, domain included.
    function sessionIdOf(Open calldata terms) external view returns (bytes32);

    /// @notice A node's side of the escrow.
    /// @param nodeId Any number.
    /// @return settler Who may settle for it. 0: nobody.
    /// @return earnings Atoms to be collected, before the fee.
    function nodeAccount(uint32 nodeId) external view returns (address settler, uint96 earnings);

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

    /// @notice Receives the fees.
    /// @return Address.
    function TREASURY() external view returns (address);

    /// @notice Longest time from opening a session to its `expiresAt`.
    /// @return Seconds, at most 72 hours.
    function MAX_SESSION_SECONDS() external view returns (uint32);

    /// @notice Time after `expiresAt` in which vouchers still settle.
    /// @return Seconds.
    function GRACE_SECONDS() external view returns (uint32);

    /// @notice EIP-712 domain separator of this chain and contract.
    /// @return Recomputed when the chain id changes.
    function DOMAIN_SEPARATOR() external view returns (bytes32);
}
