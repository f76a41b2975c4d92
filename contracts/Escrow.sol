// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {EscrowAccounts} from "./escrow/EscrowAccounts.sol";
import {EscrowClaims} from "./escrow/EscrowClaims.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {ReceiptReader} from "./ReceiptReader.sol";
import {Open} from "./types/Messages.sol";
import {Session} from "./types/Sessions.sol";

/// @title Escrow
/// @notice Accounts, keys, sessions, claims, earnings and fees. The prose is in `IEscrow`, the parts in `escrow/`.
contract Escrow is EscrowAccounts, EscrowClaims {
    uint32 private constant _LONGEST_SESSION_SECONDS = 72 hours;
    uint32 private constant _LONGEST_GRACE_SECONDS = 72 hours;
    uint32 private constant _SHORTEST_CHALLENGE_SECONDS = 1 minutes;

    modifier onlyRegistry() {
        if (msg.sender != address(REGISTRY)) revert Escrow_NotRegistry(msg.sender, address(REGISTRY));
        _;
    }

    /// @notice Fixes for good what the escrow holds and for how long.
    /// @param token Plain ERC-20 that the escrow holds.
    /// @param registry May be an address at which the registry is deployed later.
    /// @param court May be an address at which the court is deployed later.
    /// @param treasury Receives the fees.
    /// @param maxSessionSeconds 1 second to 72 hours.
    /// @param graceSeconds Time after a session in which vouchers and claims still count, at most 72 hours.
    /// @param challengeSeconds Time in which a claim can be disputed, at least a minute.
    constructor(
        IERC20 token,
        INodeRegistry registry,
        address court,
        address treasury,
        uint32 maxSessionSeconds,
        uint32 graceSeconds,
        uint32 challengeSeconds
    ) EIP712("Wattline", "1") {
        _requireReceiver(treasury);
        if (address(token) == address(0)) revert Escrow_WrongAddress(address(token));
        if (address(registry) == address(0)) revert Escrow_WrongAddress(address(registry));
        if (court == address(0)) revert Escrow_WrongAddress(court);
        if (maxSessionSeconds == 0 || maxSessionSeconds > _LONGEST_SESSION_SECONDS) {
            revert Escrow_WrongMaxSession(maxSessionSeconds, _LONGEST_SESSION_SECONDS);
        }
        if (graceSeconds > _LONGEST_GRACE_SECONDS) {
            revert Escrow_WrongGrace(graceSeconds, _LONGEST_GRACE_SECONDS);
        }
        if (challengeSeconds < _SHORTEST_CHALLENGE_SECONDS) {
            revert Escrow_WrongChallenge(challengeSeconds, _SHORTEST_CHALLENGE_SECONDS);
        }

        TOKEN = token;
        REGISTRY = registry;
        RECEIPTS = new ReceiptReader();
        COURT = court;
        TREASURY = treasury;
        MAX_SESSION_SECONDS = maxSessionSeconds;
        GRACE_SECONDS = graceSeconds;
        CHALLENGE_SECONDS = challengeSeconds;
    }

    /* NODES, as the registry tells */

    /// @inheritdoc IEscrow
    function setSettler(uint32 nodeId, address settler) external override onlyRegistry {
        _nodes[nodeId].settler = settler;
        emit SettlerSet(nodeId, settler);
    }

    /// @inheritdoc IEscrow
    function setNode(uint32 nodeId, address owner, uint16 epoch, bool serves) external override onlyRegistry {
        _owners[nodeId] = NodeOwner(owner, epoch, serves);
    }

    /// @inheritdoc IEscrow
    function setServing(uint32[] calldata nodeIds, bool serves) external override onlyRegistry {
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            _owners[nodeIds[i]].serves = serves;
        }
    }

    /* VIEWS */

    /// @inheritdoc IEscrow
    function accountOf(address buyer) external view override returns (uint128) {
        return _accounts[buyer];
    }

    /// @inheritdoc IEscrow
    function session(bytes32 sessionId, address key) external view override returns (Session memory) {
        return _sessions[key][bytes24(sessionId)];
    }

    /// @inheritdoc IEscrow
    function sessionIdOf(Open calldata terms) external view override returns (bytes32) {
        return _idOf(terms);
    }

    /// @inheritdoc IEscrow
    function nodeAccount(uint32 nodeId) external view override returns (address settler, uint96 earnings) {
        return (_nodes[nodeId].settler, _nodes[nodeId].earnings);
    }

    /// @inheritdoc IEscrow
    function serving(uint32 nodeId) external view override returns (bool ok, uint16 epoch) {
        return (_owners[nodeId].serves, _owners[nodeId].epoch);
    }

    /// @inheritdoc IEscrow
    function fees() external view override returns (uint128) {
        return _fee.uncollected;
    }

    /// @inheritdoc IEscrow
    function DOMAIN_SEPARATOR() external view override returns (bytes32) {
        return _domainSeparatorV4();
    }
}
