// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {IReceiptReader} from "../interfaces/IReceiptReader.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Claim} from "../types/Claims.sol";
import {Key} from "../types/Keys.sol";
import {Messages, Open} from "../types/Messages.sol";
import {Session} from "../types/Sessions.sol";

/// @title What every part of the escrow stands on
/// @notice Storage, immutables, and the few moves between accounts, sessions and earnings. The prose is in `IEscrow`.
abstract contract EscrowBase is IEscrow, EIP712 {
    struct NodeAccount {
        address settler;
        uint96 earnings;
    }

    struct NodeOwner {
        address owner;
        uint16 epoch;
        bool serves;
    }

    struct Fee {
        uint16 bps; // works until `effectiveAt`
        uint16 announcedBps; // works from `effectiveAt`
        uint48 effectiveAt;
        uint128 uncollected;
    }

    uint8 internal constant _EXISTS = 1;
    uint8 internal constant _CLOSED = 2;
    uint8 internal constant _CLAIMED = 4;

    /// @inheritdoc IEscrow
    uint256 public constant override CONTRACT_SIGNATURE_GAS = 100_000;

    /// @inheritdoc IEscrow
    IERC20 public immutable override TOKEN;
    /// @inheritdoc IEscrow
    INodeRegistry public immutable override REGISTRY;
    /// @inheritdoc IEscrow
    IReceiptReader public immutable override RECEIPTS;
    /// @inheritdoc IEscrow
    address public immutable override COURT;
    /// @inheritdoc IEscrow
    address public immutable override TREASURY;
    /// @inheritdoc IEscrow
    uint32 public immutable override MAX_SESSION_SECONDS;
    /// @inheritdoc IEscrow
    uint32 public immutable override GRACE_SECONDS;
    /// @inheritdoc IEscrow
    uint32 public immutable override CHALLENGE_SECONDS;

    // slots 0 and 1: unused strings of EIP712
    // slot 2
    mapping(address buyer => uint128 atoms) internal _accounts;
    // slot 3: by key first, so that whoever signed a voucher finds its session or none; then by the first 24 bytes of
    // the session's id, which is what a batch of vouchers carries
    mapping(address key => mapping(bytes24 shortId => Session value)) internal _sessions;
    // slot 4
    mapping(uint32 nodeId => NodeAccount value) internal _nodes;
    // slot 5
    Fee internal _fee;
    // slot 6
    mapping(address buyer => mapping(address key => Key value)) internal _keys;
    // slot 7
    mapping(bytes24 shortId => Claim value) internal _claims;
    // slot 8: told by the registry, so that opening a session need not ask it
    mapping(uint32 nodeId => NodeOwner value) internal _owners;

    function _debit(address buyer, uint256 amount) internal {
        uint128 held = _accounts[buyer];
        if (amount > held) revert Escrow_AboveAccount(uint128(amount), held);
        _accounts[buyer] = held - uint128(amount);
    }

    function _requireReceiver(address to) internal view {
        if (to == address(0) || to == address(this)) revert Escrow_WrongAddress(to);
    }

    /// @dev Cold calls hand in the terms again; they are right if they hash to a session that exists.
    function _find(Open calldata terms) internal view returns (bytes32 sessionId, Session storage held) {
        sessionId = _idOf(terms);
        held = _sessions[terms.key][bytes24(sessionId)];
    }

    function _findExisting(Open calldata terms) internal view returns (bytes32 sessionId, Session storage held) {
        (sessionId, held) = _find(terms);
        if (held.flags == 0) revert Escrow_UnknownSession(sessionId);
    }

    /// @dev Words with dirty high bits give the id of a session that never opened: `_open` reads every field.
    function _idOf(Open calldata terms) internal view returns (bytes32) {
        bytes32 typeHash = Messages.OPEN_TYPEHASH;
        bytes32 structHash;
        // Assembly because the terms lie in calldata just as they are hashed; Solidity would copy them twice.
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 0x20), terms, 0xe0)
            structHash := keccak256(free, 0x100)
        }
        return _hashTypedDataV4(structHash);
    }

    function _requireBuyer(address buyer, bytes32 digest, bytes calldata signature) internal view {
        address signer = Signatures.signerOf(digest, signature);
        if (signer == buyer && signer != address(0)) return;
        if (!Signatures.isAccepted(buyer, digest, signature, CONTRACT_SIGNATURE_GAS)) {
            revert Escrow_WrongSigner(signer, buyer);
        }
    }

    function _requireSigner(address expected, bytes32 digest, bytes calldata signature) internal pure {
        address signer = Signatures.signerOf(digest, signature);
        if (signer == address(0) || signer != expected) revert Escrow_WrongSigner(signer, expected);
    }

    function _narrow(uint128 amount) internal pure returns (uint64) {
        if (amount > type(uint64).max) revert Escrow_AmountTooLarge(amount, type(uint64).max);
        return uint64(amount);
    }

    function _isClosed(uint8 flags) internal pure returns (bool) {
        return flags & _CLOSED != 0;
    }
}
