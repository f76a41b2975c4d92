// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {ICourt} from "../interfaces/ICourt.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Case, CourtRules, Evidence, Juror, Proof, Seat} from "../types/Cases.sol";
import {Messages, Open, Order, Receipt} from "../types/Messages.sol";
import {Session} from "../types/Sessions.sol";

/// @title What every lane of the court stands on
/// @notice Storage, rules, the reading of evidence and the sums of penalties. The prose is in `ICourt`.
abstract contract CourtBase is ICourt {
    /// @dev What evidence shows: a receipt of this node for an order of this session.
    struct Job {
        bytes32 domain;
        bytes32 sessionId;
        bytes32 orderHash;
        bytes32 receiptHash;
        address nodeSigner;
        Session session;
    }

    uint256 internal constant _SEATS = 3;
    uint256 internal constant _MAJORITY = 2;
    uint256 private constant _PENALTY_FACTOR = 10;
    uint256 private constant _AWARD_FACTOR = 2;
    uint256 private constant _OPEN_BYTES = 7 * 32;
    uint256 private constant _ORDER_BYTES = 8 * 32;
    uint256 private constant _RECEIPT_BYTES = 10 * 32;

    /// @inheritdoc ICourt
    IEscrow public immutable override ESCROW;
    /// @inheritdoc ICourt
    INodeRegistry public immutable override REGISTRY;
    IERC20 internal immutable _TOKEN;
    uint128 internal immutable _MIN_STAKE;
    uint256 private immutable _DISPUTE_SECONDS; // from a session's end, for signature proofs and what was paid
    uint256 private immutable _CHAIN_ID;
    bytes32 private immutable _DOMAIN;

    // slots 0 and 1
    CourtRules internal _rules;
    // slot 2: by digest of the order
    mapping(bytes32 orderHash => Proof value) internal _proofs;
    // slot 3: by digest of the receipt
    mapping(bytes32 caseId => Case value) internal _cases;
    // slot 4
    mapping(bytes32 caseId => Seat[_SEATS] value) internal _seats;
    // slot 5: who had a seat, in any round, by case and challenger
    mapping(bytes32 judgement => mapping(address juror => bool was)) internal _wasDrawn;
    // slot 6: everybody with money here
    mapping(address who => Juror value) internal _jurors;
    // slot 7: who was at which place of the pool, from 1, since which block
    mapping(uint256 place => Checkpoints.Trace160 who) internal _places;
    // slot 8
    uint128 internal _burned;
    uint32 internal _poolSize;

    constructor(IEscrow escrow) {
        ESCROW = escrow;
        REGISTRY = escrow.REGISTRY();
        _TOKEN = escrow.TOKEN();
        _MIN_STAKE = REGISTRY.MIN_STAKE();
        _DISPUTE_SECONDS = uint256(escrow.GRACE_SECONDS()) + escrow.CHALLENGE_SECONDS();
        _CHAIN_ID = block.chainid;
        _DOMAIN = escrow.DOMAIN_SEPARATOR();
    }

    /// @dev Takes ten times the job, and `more`, from a provider. At least half of it is out of the buyer's reach.
    function _punish(address owner, uint256 amount, uint256 more, uint256 refunded)
        internal
        returns (uint128 slashed, uint64 award)
    {
        slashed = REGISTRY.slash(owner, amount * _PENALTY_FACTOR + more);
        uint256 due = amount * _AWARD_FACTOR - refunded;
        award = SafeCast.toUint64(due < slashed / 2 ? due : slashed / 2);
    }

    function _credit(address who, uint256 amount) internal {
        _jurors[who].balance += SafeCast.toUint64(amount);
    }

    function _examine(Evidence calldata evidence) internal view returns (Job memory job) {
        Open calldata terms = evidence.terms;
        Order calldata order = evidence.order;
        (uint256 termsAt, uint256 orderAt) = (0, 0);
        // Assembly because Solidity does not tell where a struct lies.
        assembly ("memory-safe") {
            termsAt := terms
            orderAt := order
        }
        job.domain = block.chainid == _CHAIN_ID ? _DOMAIN : ESCROW.DOMAIN_SEPARATOR();
        job.sessionId = _digest(job.domain, Messages.OPEN_TYPEHASH, termsAt, _OPEN_BYTES);
        job.session = ESCROW.session(job.sessionId, terms.key);
        if (job.session.flags == 0) revert Court_UnknownSession(job.sessionId);
        _requireSame(order.sessionId, job.sessionId);
        job.orderHash = _digest(job.domain, Messages.ORDER_TYPEHASH, orderAt, _ORDER_BYTES);
        _requireSame(evidence.receipt.orderHash, job.orderHash);
        job.receiptHash = _digest(job.domain, evidence.receipt);
        job.nodeSigner = REGISTRY.signerAt(job.session.nodeId, job.session.keyEpoch);
        _requireSigner(job.nodeSigner, job.receiptHash, evidence.signature);
    }

    /// @dev Work can be disputed as long after its session's grace as a claim waits.
    function _requireInTime(Job memory job) internal view {
        uint256 end = job.session.expiresAt + _DISPUTE_SECONDS;
        if (block.timestamp >= end) revert Court_TooLate(block.timestamp, end);
    }

    function _digest(bytes32 domain, Receipt calldata receipt) internal pure returns (bytes32) {
        uint256 at = 0;
        // Assembly because Solidity does not tell where a struct lies.
        assembly ("memory-safe") {
            at := receipt
        }
        return _digest(domain, Messages.RECEIPT_TYPEHASH, at, _RECEIPT_BYTES);
    }

    /// @dev Words with dirty high bits make a digest that no honest party signed, and are refused where they are read.
    function _digest(bytes32 domain, bytes32 typeHash, uint256 at, uint256 size) internal pure returns (bytes32) {
        bytes32 structHash;
        // Assembly because structs lie in calldata just as they are hashed; Solidity would copy them twice.
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 0x20), at, size)
            structHash := keccak256(free, add(size, 0x20))
        }
        return MessageHashUtils.toTypedDataHash(domain, structHash);
    }

    function _requireSame(bytes32 got, bytes32 wanted) internal pure {
        if (got != wanted) revert Court_WrongReference(got, wanted);
    }

    function _requireSigner(address expected, bytes32 digest, bytes calldata signature) internal pure {
        address signer = Signatures.signerOf(digest, signature);
        if (signer == address(0) || signer != expected) revert Court_WrongSigner(signer, expected);
    }
}
