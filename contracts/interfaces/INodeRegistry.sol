// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice A provider's stake, in one storage slot.
/// @param staked Atoms at work, without those in delay.
/// @param unstaking Atoms on their way out; still in the registry and still slashable.
/// @param locked Atoms that stand behind claims; exactly what is claimed and not decided. Only a slash can leave more
/// locked than `staked`.
/// @param unstakeAt Unix seconds from which `unstaking` can be withdrawn. 0: no request is pending.
/// @param registered Whether the address is a provider.
struct Provider {
    uint64 staked;
    uint64 unstaking;
    uint64 locked;
    uint48 unstakeAt;
    bool registered;
}

/// @notice A node as the registry knows it.
/// @param owner Provider that receives what the node earns; never changes. 0: no such node.
/// @param epoch Counts the node's keys, from 1.
/// @param signer Signs receipts and closing consents in this epoch.
/// @param encryptionKey X25519 key to which requests are sealed.
/// @param uri Where the node describes itself. May be empty.
struct Node {
    address owner;
    uint16 epoch;
    address signer;
    bytes32 encryptionKey;
    string uri;
}

/// @title Providers, their stake and their nodes
/// @notice Amounts are in atoms of `TOKEN`, the escrow's token. Nobody but a provider touches its nodes or its stake,
/// and stake leaves only after a delay that outlasts every window on the work it stands for.
/// @dev Assumes:
/// safety: the token is a plain ERC-20 (no fee on transfer, no rebasing); `ESCROW` names this registry.
/// liveness: the token lets the registry send to the provider; blocks keep coming.
interface INodeRegistry {
    // ------------------------------------------------------------------------------------------------ events

    /// @notice An address became a provider.
    /// @param owner The provider.
    /// @param uri Where it describes itself.
    event ProviderRegistered(address indexed owner, string uri);

    /// @notice A provider's stake grew.
    /// @param owner The provider.
    /// @param amount Atoms added.
    /// @param staked Atoms at work now, without those in delay.
    event Staked(address indexed owner, uint128 amount, uint128 staked);

    /// @notice Stake entered the delay.
    /// @param owner The provider.
    /// @param amount Atoms added to what is in delay.
    /// @param unlocksAt Unix seconds from which all that is in delay can be withdrawn.
    event UnstakeRequested(address indexed owner, uint128 amount, uint48 unlocksAt);

    /// @notice Stake left the registry.
    /// @param owner The provider, who received it.
    /// @param amount Atoms.
    event StakeWithdrawn(address indexed owner, uint128 amount);

    /// @notice Stake stands behind a claim.
    /// @param owner The provider.
    /// @param amount Atoms locked by this.
    event StakeLocked(address indexed owner, uint128 amount);

    /// @notice A claim was decided about, in part or in whole.
    /// @param owner The provider.
    /// @param amount Atoms no longer locked.
    event StakeUnlocked(address indexed owner, uint128 amount);

    /// @notice A provider lost stake.
    /// @param owner The provider.
    /// @param amount Atoms lost, at work and in delay.
    /// @param staked Atoms at work that are left.
    event Slashed(address indexed owner, uint128 amount, uint128 staked);

    /// @notice Slashed stake was paid out; the rest of it stays in the registry for good.
    /// @param to Receiver.
    /// @param amount Atoms.
    event SlashedReleased(address indexed to, uint128 amount);

    /// @notice A provider added a node, in key epoch 1.
    /// @param nodeId Its id.
    /// @param owner The provider.
    /// @param signer Signs its receipts.
    /// @param encryptionKey X25519 key to which requests are sealed.
    /// @param uri Where it describes itself.
    event NodeAdded(uint32 indexed nodeId, address indexed owner, address signer, bytes32 encryptionKey, string uri);

    /// @notice A node has new keys; sessions opened from now on are under this epoch.
    /// @param nodeId Node.
    /// @param epoch Its new key epoch.
    /// @param signer Signs its receipts in this epoch.
    /// @param encryptionKey X25519 key to which requests are sealed from now on.
    event NodeKeyRotated(uint32 indexed nodeId, uint16 epoch, address signer, bytes32 encryptionKey);

    /// @notice A node describes itself elsewhere.
    /// @param nodeId Node.
    /// @param uri New place.
    event MetadataSet(uint32 indexed nodeId, string uri);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice The address is not a provider.
    error NodeRegistry_NotProvider(address got);
    /// @notice The address is a provider already.
    error NodeRegistry_AlreadyProvider(address got);
    /// @notice Only the node's owner may do this. `limit` is the owner, 0 when there is no such node.
    error NodeRegistry_NotOwner(address got, address limit);
    /// @notice A signer or settler of 0 could never act.
    error NodeRegistry_ZeroAddress();
    /// @notice Moving nothing is a mistake.
    error NodeRegistry_ZeroAmount();
    /// @notice The token moved `got` atoms instead of `limit`: it is not a plain ERC-20.
    error NodeRegistry_WrongDelta(uint256 got, uint256 limit);
    /// @notice A provider's slot holds 64-bit amounts; nothing is ever truncated.
    error NodeRegistry_AmountTooLarge(uint128 got, uint128 limit);
    /// @notice An owner has at most `limit` nodes; more take another owner.
    error NodeRegistry_TooManyNodes(uint256 got, uint256 limit);
    /// @notice A claim needs stake that stands behind no other.
    error NodeRegistry_AboveFreeStake(uint128 got, uint128 limit);
    /// @notice Only the escrow may call.
    error NodeRegistry_NotEscrow(address got, address limit);
    /// @notice Only the court may call.
    error NodeRegistry_NotCourt(address got, address limit);
    /// @notice More than is staked outside the delay and stands behind no claim.
    error NodeRegistry_AboveStake(uint128 got, uint128 limit);
    /// @notice No stake is in delay.
    error NodeRegistry_NothingUnstaking(address got);
    /// @notice The delay runs until `limit`.
    error NodeRegistry_TooEarly(uint256 got, uint256 limit);
    /// @notice Stake must outlast every window on the work it stands for.
    error NodeRegistry_DelayTooShort(uint256 got, uint256 limit);
    /// @notice The escrow was built for another registry.
    error NodeRegistry_WrongEscrow(address got, address limit);
    /// @notice The escrow holds another token.
    error NodeRegistry_WrongToken(address got, address limit);

    // --------------------------------------------------------------------------------------------- providers

    /// @notice Makes the caller a provider, for good. Twice is an error.
    /// @param uri Where the provider describes itself; kept in the event only. May be empty.
    function register(string calldata uri) external;

    /// @notice Adds to the caller's stake. Providers only; needs an allowance.
    /// @param amount Atoms taken from the caller's tokens, more than 0.
    function stake(uint128 amount) external;

    /// @notice Puts stake of the caller into the delay. One request is pending at a time: a further one adds its
    /// amount and starts the delay of the whole anew.
    /// @param amount Atoms, more than 0, at most `staked` less `locked`.
    function requestUnstake(uint128 amount) external;

    /// @notice Sends the caller all its stake in delay, from `unstakeAt` on.
    function withdrawStake() external;

    // -------------------------------------------------------------------------------------- claims, penalties

    /// @notice Locks free stake behind a claim. Escrow only.
    /// @param owner The provider.
    /// @param amount Atoms, at most `staked` less `locked`.
    function lock(address owner, uint64 amount) external;

    /// @notice Frees stake when a claim is decided. Escrow only.
    /// @param owner The provider.
    /// @param amount Atoms.
    function unlock(address owner, uint64 amount) external;

    /// @notice Takes stake, locked or not, and then what is in delay. Court only.
    /// @param owner The provider.
    /// @param amount Atoms; more than there is takes all.
    /// @return taken Atoms taken, which stay here until `release`.
    function slash(address owner, uint256 amount) external returns (uint128 taken);

    /// @notice Pays slashed stake out. Court only. What is never released is burned: nothing else can move it.
    /// @param to Receiver.
    /// @param amount Atoms, at most `slashed`.
    function release(address to, uint128 amount) external;

    // ------------------------------------------------------------------------------------------------- nodes

    /// @notice Adds a node of the caller. Providers only, at most 100 nodes each. Tells the escrow its settler.
    /// @param signer Key that signs receipts, not 0.
    /// @param encryptionKey X25519 key to which requests are sealed.
    /// @param settler Only address that may turn vouchers into earnings, not 0.
    /// @param uri Where the node describes itself. May be empty.
    /// @return nodeId Counts from 1; 0 is never a node.
    function addNode(address signer, bytes32 encryptionKey, address settler, string calldata uri)
        external
        returns (uint32 nodeId);

    /// @notice Starts a new key epoch. Sessions opened before stay under the old key. Owner only.
    /// @param nodeId Node of the caller.
    /// @param signer New key, not 0.
    /// @param encryptionKey New X25519 key.
    function rotateNodeKey(uint32 nodeId, address signer, bytes32 encryptionKey) external;

    /// @notice Changes who may settle for the node, at once and for open sessions too. Owner only.
    /// @param nodeId Node of the caller.
    /// @param settler Not 0.
    function setSettler(uint32 nodeId, address settler) external;

    /// @notice Changes where the node describes itself. Owner only.
    /// @param nodeId Node of the caller.
    /// @param uri May be empty.
    function setMetadata(uint32 nodeId, string calldata uri) external;

    // ------------------------------------------------------------------------------------------------- views

    /// @notice Stake of a provider.
    /// @param owner Any address.
    /// @return All zero for an address that never registered.
    function provider(address owner) external view returns (Provider memory);

    /// @notice A node, with its newest key.
    /// @param nodeId Any number.
    /// @return Owner 0 when there is no such node.
    function node(uint32 nodeId) external view returns (Node memory);

    /// @notice Who receives what a node earns.
    /// @param nodeId Any number.
    /// @return 0 when there is no such node.
    function ownerOf(uint32 nodeId) external view returns (address);

    /// @notice Key of a node in one of its epochs.
    /// @param nodeId Any number.
    /// @param epoch From 1.
    /// @return 0 when there was no such epoch.
    function signerAt(uint32 nodeId, uint16 epoch) external view returns (address);

    /// @notice Whether sessions may open with a node now: its owner has at least `MIN_STAKE` outside the delay.
    /// @param nodeId Any number.
    /// @return ok False too when there is no such node.
    /// @return epoch The node's key epoch now. 0: no such node.
    function serving(uint32 nodeId) external view returns (bool ok, uint16 epoch);

    /// @notice Nodes ever added; also the newest node's id.
    /// @return Number of nodes.
    function nodeCount() external view returns (uint32);

    /// @notice Stake below which no session opens with a provider's nodes.
    /// @return Atoms. 0: none is needed.
    function MIN_STAKE() external view returns (uint128);

    /// @notice Time from an unstake request to its withdrawal.
    /// @return Seconds.
    function UNSTAKE_DELAY_SECONDS() external view returns (uint48);

    /// @notice Stake taken and not released.
    /// @return Atoms.
    function slashed() external view returns (uint128);

    /// @notice Time in which work is disputed after its session's grace, cases included.
    /// @return Seconds.
    function DISPUTE_SECONDS() external view returns (uint48);

    /// @notice Decides about penalties; the escrow's court.
    /// @return Address of the court.
    function COURT() external view returns (address);

    /// @notice Token in which stake is held.
    /// @return The escrow's token.
    function TOKEN() external view returns (IERC20);

    /// @notice Escrow whose sessions the nodes serve.
    /// @return Address of the escrow.
    function ESCROW() external view returns (address);
}
