// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {SessionWord, SessionWords} from "./libraries/SessionWord.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Vouchers} from "./libraries/Vouchers.sol";
import {Close, Messages, Open, TopUp} from "./types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "./types/Sessions.sol";

/// @title Escrow
/// @notice Accounts, sessions, earnings and fees. The prose is in `IEscrow`.
contract Escrow is IEscrow, EIP712 {
    using SafeERC20 for IERC20;

    struct NodeAccount {
        address settler;
        uint96 earnings;
    }

    struct Fee {
        uint16 bps; // works until `effectiveAt`
        uint16 announcedBps; // works from `effectiveAt`
        uint48 effectiveAt;
        uint128 uncollected;
    }

    uint32 private constant _LONGEST_SESSION_SECONDS = 72 hours;
    uint48 private constant _FEE_NOTICE_SECONDS = 7 days;
    uint16 private constant _FEE_CEILING_BPS = 500;
    uint16 private constant _ONE_HUNDRED_PERCENT_BPS = 10_000;
    uint8 private constant _EXISTS = 1;
    uint8 private constant _CLOSED = 2;

    /// @inheritdoc IEscrow
    IERC20 public immutable override TOKEN;
    /// @inheritdoc IEscrow
    INodeRegistry public immutable override REGISTRY;
    /// @inheritdoc IEscrow
    address public immutable override TREASURY;
    /// @inheritdoc IEscrow
    uint32 public immutable override MAX_SESSION_SECONDS;
    /// @inheritdoc IEscrow
    uint32 public immutable override GRACE_SECONDS;

    // slots 0 and 1: unused strings of EIP712
    // slot 2
    mapping(address buyer => uint128 atoms) private _accounts;
    // slot 3: under keccak256(sessionId, key), so that whoever signed a voucher finds its session or none
    mapping(bytes32 sessionSlot => Session value) private _sessions;
    // slot 4
    mapping(uint32 nodeId => NodeAccount value) private _nodes;
    // slot 5
    Fee private _fee;

    /// @notice Fixes for good what the escrow holds and for how long.
    /// @param token Plain ERC-20 that the escrow holds.
    /// @param registry May be an address at which the registry is deployed later.
    /// @param treasury Receives the fees.
    /// @param maxSessionSeconds 1 second to 72 hours.
    /// @param graceSeconds Time after a session in which vouchers still settle.
    constructor(
        IERC20 token,
        INodeRegistry registry,
        address treasury,
        uint32 maxSessionSeconds,
        uint32 graceSeconds
    ) EIP712("Wattline", "1") {
        _requireReceiver(treasury);
        if (address(token) == address(0)) revert Escrow_WrongAddress(address(token));
        if (address(registry) == address(0)) revert Escrow_WrongAddress(address(registry));
        if (maxSessionSeconds == 0 || maxSessionSeconds > _LONGEST_SESSION_SECONDS) {
            revert Escrow_WrongMaxSession(maxSessionSeconds, _LONGEST_SESSION_SECONDS);
        }

        TOKEN = token;
        REGISTRY = registry;
        TREASURY = treasury;
        MAX_SESSION_SECONDS = maxSessionSeconds;
        GRACE_SECONDS = graceSeconds;
    }

    /* ACCOUNT */

    /// @inheritdoc IEscrow
    function deposit(uint128 amount) external override {
        if (amount == 0) revert Escrow_ZeroAmount();
        uint256 held = TOKEN.balanceOf(address(this));

        _accounts[msg.sender] += amount;
        emit Deposited(msg.sender, amount);

        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        // Also what refuses a callback that took this credit out again before it was paid for.
        _requireDelta(held, TOKEN.balanceOf(address(this)), amount);
    }

    /// @inheritdoc IEscrow
    function withdraw(uint128 amount, address to) external override {
        if (amount == 0) revert Escrow_ZeroAmount();
        _requireReceiver(to);

        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);

        TOKEN.safeTransfer(to, amount);
    }

    /* SESSIONS */

    /// @inheritdoc IEscrow
    function open(Open[] calldata opens, bytes[] calldata signatures)
        external
        override
        returns (bytes32[] memory sessionIds)
    {
        if (opens.length != signatures.length) revert Escrow_LengthMismatch(signatures.length, opens.length);

        sessionIds = new bytes32[](opens.length);
        for (uint256 i = 0; i < opens.length; ++i) {
            sessionIds[i] = _open(opens[i], signatures[i]);
        }
    }

    /// @inheritdoc IEscrow
    function topUp(Open calldata terms, uint128 deposited, bytes calldata signature) external override {
        (bytes32 sessionId, Session storage held) = _find(terms);
        if (held.flags == 0) revert Escrow_UnknownSession(sessionId);
        if (deposited <= held.deposited) return;
        if (_isClosed(held.flags)) revert Escrow_SessionClosed(sessionId);
        if (block.timestamp >= held.expiresAt) revert Escrow_SessionOver(block.timestamp, held.expiresAt);
        uint64 total = _narrow(deposited);
        _requireBuyer(terms.buyer, _hashTypedDataV4(Messages.hash(TopUp(sessionId, deposited))), signature);

        uint128 added = deposited - held.deposited;
        _debit(terms.buyer, added);
        held.deposited = total;
        emit SessionToppedUp(sessionId, added, deposited);
    }

    /// @inheritdoc IEscrow
    function settle(SettleItem[] calldata items) external override {
        bytes32 domain = _domainSeparatorV4();
        uint256 graceStart = block.timestamp > GRACE_SECONDS ? block.timestamp - GRACE_SECONDS : 0;
        uint256 nodeId = 0; // none yet: ids start at 1
        bool isSettler = false;
        uint256 earned = 0;

        for (uint256 i = 0; i < items.length; ++i) {
            SettleItem calldata item = items[i];
            (address signer, uint256 throughSeq, uint256 amount) = Vouchers.read(item, domain);
            Session storage held = _sessions[_slotOf(item.sessionId, signer)];
            SessionWord was = SessionWords.load(held);
            if (was.nodeId() != nodeId) {
                // Neighbours of one node share one read of its settler and one write of its earnings.
                _earn(nodeId, earned);
                (nodeId, earned) = (was.nodeId(), 0);
                isSettler = _nodes[uint32(nodeId)].settler == msg.sender;
            }

            SettleStatus status = _judge(was, throughSeq, amount, isSettler, graceStart);
            if (status != SettleStatus.Settled) {
                emit VoucherSkipped(item.sessionId, status);
                continue;
            }
            // Cannot overflow: paid ≤ amount ≤ deposited < 2^64, and no batch has 2^192 items.
            unchecked {
                earned += amount - was.paid();
            }
            SessionWords.store(held, was.advanced(amount, throughSeq));
            emit VoucherSettled(item.sessionId, uint32(nodeId), uint32(throughSeq), uint128(amount), item.receiptsRoot);
        }
        _earn(nodeId, earned);
    }

    /// @inheritdoc IEscrow
    function close(Open calldata terms, uint128 minPaid, bytes calldata nodeSignature) external override {
        (bytes32 sessionId, Session storage held) = _find(terms);
        if (held.flags == 0) revert Escrow_UnknownSession(sessionId);
        if (_isClosed(held.flags)) return;
        if (held.paid < minPaid) revert Escrow_PaidTooLittle(held.paid, minPaid);
        address signer = REGISTRY.signerAt(held.nodeId, held.keyEpoch);
        _requireSigner(signer, _hashTypedDataV4(Messages.hash(Close(sessionId, minPaid))), nodeSignature);

        _return(sessionId, held, terms.buyer);
    }

    /// @inheritdoc IEscrow
    function expire(Open[] calldata terms) external override {
        for (uint256 i = 0; i < terms.length; ++i) {
            (bytes32 sessionId, Session storage held) = _find(terms[i]);
            if (held.flags == 0 || _isClosed(held.flags)) continue;
            uint256 graceEnd = uint256(held.expiresAt) + GRACE_SECONDS;
            if (block.timestamp < graceEnd) revert Escrow_TooEarly(block.timestamp, graceEnd);

            _return(sessionId, held, terms[i].buyer);
        }
    }

    /* NODES */

    /// @inheritdoc IEscrow
    function collect(uint32[] calldata nodeIds) external override {
        uint256 bps = feeBps();
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            uint128 earnings = _nodes[nodeIds[i]].earnings;
            if (earnings == 0) continue;
            address to = REGISTRY.ownerOf(nodeIds[i]);
            uint128 feeDown = uint128((earnings * bps) / _ONE_HUNDRED_PERCENT_BPS);

            _nodes[nodeIds[i]].earnings = 0;
            _fee.uncollected += feeDown;
            emit Collected(nodeIds[i], to, earnings - feeDown, feeDown);

            TOKEN.safeTransfer(to, earnings - feeDown);
        }
    }

    /// @inheritdoc IEscrow
    function setSettler(uint32 nodeId, address settler) external override {
        if (msg.sender != address(REGISTRY)) revert Escrow_NotRegistry(msg.sender, address(REGISTRY));

        _nodes[nodeId].settler = settler;
        emit SettlerSet(nodeId, settler);
    }

    /* FEE */

    /// @inheritdoc IEscrow
    function announceFee(uint16 bps) external override {
        if (msg.sender != TREASURY) revert Escrow_NotTreasury(msg.sender, TREASURY);
        if (bps > _FEE_CEILING_BPS) revert Escrow_FeeTooHigh(bps, _FEE_CEILING_BPS);

        uint16 current = feeBps();
        uint48 effectiveAt = SafeCast.toUint48(block.timestamp);
        if (bps > current) effectiveAt += _FEE_NOTICE_SECONDS;
        (_fee.bps, _fee.announcedBps, _fee.effectiveAt) = (current, bps, effectiveAt);
        emit FeeAnnounced(bps, effectiveAt);
    }

    /// @inheritdoc IEscrow
    function withdrawFees() external override {
        uint128 amount = _fee.uncollected;
        if (amount == 0) return;

        _fee.uncollected = 0;
        emit FeesWithdrawn(TREASURY, amount);

        TOKEN.safeTransfer(TREASURY, amount);
    }

    /* VIEWS */

    /// @inheritdoc IEscrow
    function accountOf(address buyer) external view override returns (uint128) {
        return _accounts[buyer];
    }

    /// @inheritdoc IEscrow
    function session(bytes32 sessionId, address key) external view override returns (Session memory) {
        return _sessions[_slotOf(sessionId, key)];
    }

    /// @inheritdoc IEscrow
    function sessionIdOf(Open calldata terms) external view override returns (bytes32) {
        return _hashTypedDataV4(Messages.hash(terms));
    }

    /// @inheritdoc IEscrow
    function nodeAccount(uint32 nodeId) external view override returns (address settler, uint96 earnings) {
        return (_nodes[nodeId].settler, _nodes[nodeId].earnings);
    }

    /// @inheritdoc IEscrow
    function fees() external view override returns (uint128) {
        return _fee.uncollected;
    }

    /// @inheritdoc IEscrow
    function DOMAIN_SEPARATOR() external view override returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IEscrow
    function feeBps() public view override returns (uint16) {
        return block.timestamp < _fee.effectiveAt ? _fee.bps : _fee.announcedBps;
    }

    /* HELPERS */

    function _open(Open calldata terms, bytes calldata signature) private returns (bytes32 sessionId) {
        Session storage held;
        (sessionId, held) = _find(terms);
        if (held.flags != 0) return sessionId;
        uint16 epoch = _requireOpenable(terms);
        uint64 amount = _narrow(terms.amount);
        _requireBuyer(terms.buyer, sessionId, signature);

        _debit(terms.buyer, amount);
        (held.deposited, held.nodeId, held.keyEpoch, held.flags) = (amount, terms.nodeId, epoch, _EXISTS);
        held.expiresAt = SafeCast.toUint40(terms.expiresAt);
        emit SessionOpened(sessionId, terms.buyer, terms.nodeId, terms.key, amount, terms.expiresAt, epoch);
    }

    function _debit(address buyer, uint128 amount) private {
        uint128 held = _accounts[buyer];
        if (amount > held) revert Escrow_AboveAccount(amount, held);
        _accounts[buyer] = held - amount;
    }

    function _earn(uint256 nodeId, uint256 earned) private {
        if (earned > 0) _nodes[uint32(nodeId)].earnings += SafeCast.toUint96(earned);
    }

    function _return(bytes32 sessionId, Session storage held, address buyer) private {
        uint64 rest = held.deposited - held.paid;

        held.flags |= _CLOSED;
        _accounts[buyer] += rest;
        emit SessionClosed(sessionId, held.paid, rest);
    }

    function _requireOpenable(Open calldata terms) private view returns (uint16 epoch) {
        if (terms.amount == 0) revert Escrow_ZeroAmount();
        if (terms.key == address(0)) revert Escrow_ZeroKey();
        if (block.timestamp >= terms.openBefore) revert Escrow_OpenedTooLate(block.timestamp, terms.openBefore);
        if (block.timestamp >= terms.expiresAt) revert Escrow_SessionOver(block.timestamp, terms.expiresAt);
        uint256 latest = block.timestamp + MAX_SESSION_SECONDS;
        if (terms.expiresAt > latest) revert Escrow_SessionTooLong(terms.expiresAt, latest);
        bool ok;
        (ok, epoch) = REGISTRY.serving(terms.nodeId);
        if (!ok) revert Escrow_NotServing(terms.nodeId);
    }

    /// @dev Cold calls hand in the terms again; they are right if they hash to a session that exists.
    function _find(Open calldata terms) private view returns (bytes32 sessionId, Session storage held) {
        sessionId = _hashTypedDataV4(Messages.hash(terms));
        held = _sessions[_slotOf(sessionId, terms.key)];
    }

    function _requireBuyer(address buyer, bytes32 digest, bytes calldata signature) private view {
        if (signature.length == 0 && msg.sender == buyer) return;
        _requireSigner(buyer, digest, signature);
    }

    function _requireReceiver(address to) private view {
        if (to == address(0) || to == address(this)) revert Escrow_WrongAddress(to);
    }

    function _slotOf(bytes32 sessionId, address key) private pure returns (bytes32) {
        return Hashes.efficientKeccak256(sessionId, bytes32(uint256(uint160(key))));
    }

    function _isClosed(uint8 flags) private pure returns (bool) {
        return flags & _CLOSED != 0;
    }

    function _narrow(uint128 amount) private pure returns (uint64) {
        if (amount > type(uint64).max) revert Escrow_AmountTooLarge(amount, type(uint64).max);
        return uint64(amount);
    }

    function _requireSigner(address expected, bytes32 digest, bytes calldata signature) private pure {
        address signer = Signatures.signerOf(digest, signature);
        if (signer == address(0) || signer != expected) revert Escrow_WrongSigner(signer, expected);
    }

    /// @dev Every rule of settling. A session that expired by `graceStart` has no grace left.
    function _judge(SessionWord was, uint256 throughSeq, uint256 amount, bool isSettler, uint256 graceStart)
        private
        pure
        returns (SettleStatus)
    {
        if (was.flags() == 0) return SettleStatus.UnknownSession;
        if (!isSettler) return SettleStatus.NotSettler;
        if (was.flags() != _EXISTS) return SettleStatus.Closed;
        if (was.expiresAt() <= graceStart) return SettleStatus.Expired;
        if (amount > was.deposited()) return SettleStatus.AboveDeposit;
        if (amount < was.paid()) return SettleStatus.Stale;
        if (throughSeq < was.throughSeq()) return SettleStatus.Stale;
        if (amount == was.paid() && throughSeq == was.throughSeq()) return SettleStatus.Stale;
        return SettleStatus.Settled;
    }

    function _requireDelta(uint256 before, uint256 afterwards, uint256 amount) private pure {
        uint256 delta = afterwards < before ? 0 : afterwards - before;
        if (delta != amount) revert Escrow_WrongDelta(delta, amount);
    }
}
