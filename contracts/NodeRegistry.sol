// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {INodeRegistry, Node, Provider} from "./interfaces/INodeRegistry.sol";

/// @title NodeRegistry
/// @notice Providers, stake, nodes and their keys. The prose is in `INodeRegistry`.
contract NodeRegistry is INodeRegistry {
    using SafeERC20 for IERC20;

    /// @dev The court's slash tells the escrow of each, so there is an end to them.
    uint256 private constant _MOST_NODES = 100;

    /// @inheritdoc INodeRegistry
    IERC20 public immutable override TOKEN;
    /// @inheritdoc INodeRegistry
    address public immutable override ESCROW;
    /// @inheritdoc INodeRegistry
    address public immutable override COURT;
    /// @inheritdoc INodeRegistry
    uint128 public immutable override MIN_STAKE;
    /// @inheritdoc INodeRegistry
    uint48 public immutable override UNSTAKE_DELAY_SECONDS;
    /// @inheritdoc INodeRegistry
    uint48 public immutable override DISPUTE_SECONDS;

    // slot 0
    mapping(address owner => Provider value) private _providers;
    // slot 1
    mapping(uint32 nodeId => Node value) private _nodes;
    // slot 2: every key a node ever had
    mapping(uint32 nodeId => mapping(uint16 epoch => address signer)) private _signers;
    // slot 3
    mapping(address owner => uint32[] nodeIds) private _nodesOf;
    // slot 4
    uint32 private _nodeCount;
    uint128 private _slashed;

    modifier onlyProvider() {
        if (!_providers[msg.sender].registered) revert NodeRegistry_NotProvider(msg.sender);
        _;
    }

    modifier onlyOwner(uint32 nodeId) {
        address owner = _nodes[nodeId].owner;
        if (msg.sender != owner) revert NodeRegistry_NotOwner(msg.sender, owner);
        _;
    }

    modifier onlyEscrow() {
        if (msg.sender != ESCROW) revert NodeRegistry_NotEscrow(msg.sender, ESCROW);
        _;
    }

    modifier onlyCourt() {
        if (msg.sender != COURT) revert NodeRegistry_NotCourt(msg.sender, COURT);
        _;
    }

    /// @notice Binds to an escrow that was built for this very address.
    /// @param token Token in which stake is held; the escrow's.
    /// @param escrow Already deployed, for this registry's address.
    /// @param minStake Atoms below which no session opens. 0: none is needed.
    /// @param unstakeDelaySeconds More than the longest session, its grace and `disputeSeconds` together.
    /// @param disputeSeconds All challenge windows and the longest case; the court checks it.
    constructor(
        IERC20 token,
        IEscrow escrow,
        uint128 minStake,
        uint48 unstakeDelaySeconds,
        uint48 disputeSeconds
    ) {
        address registry = address(escrow.REGISTRY());
        if (registry != address(this)) revert NodeRegistry_WrongEscrow(registry, address(this));
        address held = address(escrow.TOKEN());
        if (held != address(token)) revert NodeRegistry_WrongToken(address(token), held);
        uint256 windows = uint256(escrow.MAX_SESSION_SECONDS()) + escrow.GRACE_SECONDS() + disputeSeconds;
        if (unstakeDelaySeconds <= windows) revert NodeRegistry_DelayTooShort(unstakeDelaySeconds, windows);

        TOKEN = token;
        ESCROW = address(escrow);
        COURT = escrow.COURT();
        MIN_STAKE = minStake;
        UNSTAKE_DELAY_SECONDS = unstakeDelaySeconds;
        DISPUTE_SECONDS = disputeSeconds;
    }

    /* PROVIDERS */

    /// @inheritdoc INodeRegistry
    function register(string calldata uri) external override {
        if (_providers[msg.sender].registered) revert NodeRegistry_AlreadyProvider(msg.sender);

        _providers[msg.sender].registered = true;
        emit ProviderRegistered(msg.sender, uri);
    }

    /// @inheritdoc INodeRegistry
    function stake(uint128 amount) external override onlyProvider {
        if (amount == 0) revert NodeRegistry_ZeroAmount();
        uint256 held = TOKEN.balanceOf(address(this));

        Provider storage owner = _providers[msg.sender];
        uint64 before = owner.staked;
        uint64 staked = _narrow(before + amount);
        owner.staked = staked;
        emit Staked(msg.sender, amount, staked);
        _tellServing(msg.sender, before, staked);

        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        _requireDelta(held, TOKEN.balanceOf(address(this)), amount);
    }

    /// @inheritdoc INodeRegistry
    function requestUnstake(uint128 amount) external override onlyProvider {
        if (amount == 0) revert NodeRegistry_ZeroAmount();
        Provider storage owner = _providers[msg.sender];
        uint64 before = owner.staked;
        uint64 free = _free(owner);
        if (amount > free) revert NodeRegistry_AboveStake(amount, free);

        uint64 out = uint64(amount);
        uint48 unlocksAt = SafeCast.toUint48(block.timestamp + UNSTAKE_DELAY_SECONDS);
        owner.staked = before - out;
        owner.unstaking += out;
        owner.unstakeAt = unlocksAt;
        emit UnstakeRequested(msg.sender, amount, unlocksAt);
        _tellServing(msg.sender, before, before - out);
    }

    /// @inheritdoc INodeRegistry
    function withdrawStake() external override onlyProvider {
        Provider storage owner = _providers[msg.sender];
        uint128 amount = owner.unstaking;
        if (amount == 0) revert NodeRegistry_NothingUnstaking(msg.sender);
        if (block.timestamp < owner.unstakeAt) revert NodeRegistry_TooEarly(block.timestamp, owner.unstakeAt);

        (owner.unstaking, owner.unstakeAt) = (0, 0);
        emit StakeWithdrawn(msg.sender, amount);

        TOKEN.safeTransfer(msg.sender, amount);
    }

    /* CLAIMS AND PENALTIES */

    /// @inheritdoc INodeRegistry
    function lock(address owner, uint64 amount) external override onlyEscrow {
        uint64 free = _free(_providers[owner]);
        if (amount > free) revert NodeRegistry_AboveFreeStake(amount, free);

        _providers[owner].locked += amount;
        emit StakeLocked(owner, amount);
    }

    /// @inheritdoc INodeRegistry
    function unlock(address owner, uint64 amount) external override onlyEscrow {
        _providers[owner].locked -= amount;
        emit StakeUnlocked(owner, amount);
    }

    /// @inheritdoc INodeRegistry
    function slash(address owner, uint256 amount) external override onlyCourt returns (uint128 taken) {
        Provider storage guilty = _providers[owner];
        uint64 before = guilty.staked;
        uint256 all = uint256(before) + guilty.unstaking;
        taken = uint128(amount < all ? amount : all);

        // Stake on its way out goes last, so that leaving early saves nothing that staying would have lost.
        uint64 fromStaked = uint64(taken < before ? taken : before);
        guilty.staked = before - fromStaked;
        guilty.unstaking -= uint64(taken - fromStaked);
        _slashed += taken;
        emit Slashed(owner, taken, before - fromStaked);
        _tellServing(owner, before, before - fromStaked);
    }

    /// @inheritdoc INodeRegistry
    function release(address to, uint128 amount) external override onlyCourt {
        _slashed -= amount;
        emit SlashedReleased(to, amount);

        TOKEN.safeTransfer(to, amount);
    }

    /* NODES */

    /// @inheritdoc INodeRegistry
    function addNode(address signer, bytes32 encryptionKey, address settler, string calldata uri)
        external
        override
        onlyProvider
        returns (uint32 nodeId)
    {
        _requireNonZero(signer);
        _requireNonZero(settler);
        uint256 owned = _nodesOf[msg.sender].length;
        if (owned >= _MOST_NODES) revert NodeRegistry_TooManyNodes(owned, _MOST_NODES);

        nodeId = ++_nodeCount;
        _nodesOf[msg.sender].push(nodeId);
        _nodes[nodeId] =
            Node({owner: msg.sender, epoch: 1, signer: signer, encryptionKey: encryptionKey, uri: uri});
        _signers[nodeId][1] = signer;
        emit NodeAdded(nodeId, msg.sender, signer, encryptionKey, uri);

        IEscrow(ESCROW).setNode(nodeId, msg.sender, 1, _serves(_providers[msg.sender].staked));
        IEscrow(ESCROW).setSettler(nodeId, settler);
    }

    /// @inheritdoc INodeRegistry
    function rotateNodeKey(uint32 nodeId, address signer, bytes32 encryptionKey) external override onlyOwner(nodeId) {
        _requireNonZero(signer);
        Node storage rotated = _nodes[nodeId];

        uint16 epoch = rotated.epoch + 1;
        (rotated.epoch, rotated.signer, rotated.encryptionKey) = (epoch, signer, encryptionKey);
        _signers[nodeId][epoch] = signer;
        emit NodeKeyRotated(nodeId, epoch, signer, encryptionKey);

        IEscrow(ESCROW).setNode(nodeId, msg.sender, epoch, _serves(_providers[msg.sender].staked));
    }

    /// @inheritdoc INodeRegistry
    function setSettler(uint32 nodeId, address settler) external override onlyOwner(nodeId) {
        _requireNonZero(settler);

        IEscrow(ESCROW).setSettler(nodeId, settler);
    }

    /// @inheritdoc INodeRegistry
    function setMetadata(uint32 nodeId, string calldata uri) external override onlyOwner(nodeId) {
        _nodes[nodeId].uri = uri;
        emit MetadataSet(nodeId, uri);
    }

    /* VIEWS */

    /// @inheritdoc INodeRegistry
    function provider(address owner) external view override returns (Provider memory) {
        return _providers[owner];
    }

    /// @inheritdoc INodeRegistry
    function node(uint32 nodeId) external view override returns (Node memory) {
        return _nodes[nodeId];
    }

    /// @inheritdoc INodeRegistry
    function ownerOf(uint32 nodeId) external view override returns (address) {
        return _nodes[nodeId].owner;
    }

    /// @inheritdoc INodeRegistry
    function signerAt(uint32 nodeId, uint16 epoch) external view override returns (address) {
        return _signers[nodeId][epoch];
    }

    /// @inheritdoc INodeRegistry
    function serving(uint32 nodeId) external view override returns (bool ok, uint16 epoch) {
        Node storage asked = _nodes[nodeId];
        ok = asked.owner != address(0) && _serves(_providers[asked.owner].staked);
        epoch = asked.epoch;
    }

    /// @inheritdoc INodeRegistry
    function nodeCount() external view override returns (uint32) {
        return _nodeCount;
    }

    /// @inheritdoc INodeRegistry
    function slashed() external view override returns (uint128) {
        return _slashed;
    }

    /* HELPERS */

    function _tellServing(address owner, uint64 before, uint64 staked) private {
        bool serves = _serves(staked);
        uint32[] storage nodeIds = _nodesOf[owner];
        if (serves != _serves(before) && nodeIds.length > 0) IEscrow(ESCROW).setServing(nodeIds, serves);
    }

    function _serves(uint64 staked) private view returns (bool) {
        return staked >= MIN_STAKE;
    }

    /// @dev A slash may leave less than is locked.
    function _free(Provider storage owner) private view returns (uint64) {
        return owner.staked > owner.locked ? owner.staked - owner.locked : 0;
    }

    function _narrow(uint128 amount) private pure returns (uint64) {
        if (amount > type(uint64).max) revert NodeRegistry_AmountTooLarge(amount, type(uint64).max);
        return uint64(amount);
    }

    function _requireDelta(uint256 before, uint256 afterwards, uint256 amount) private pure {
        uint256 delta = afterwards < before ? 0 : afterwards - before;
        if (delta != amount) revert NodeRegistry_WrongDelta(delta, amount);
    }

    function _requireNonZero(address got) private pure {
        if (got == address(0)) revert NodeRegistry_ZeroAddress();
    }
}
