// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./../interfaces/IEscrow.sol";
import {IReceiveWithAuthorization} from "./../interfaces/IReceiveWithAuthorization.sol";
import {EscrowBase} from "./EscrowBase.sol";

/// @title Money in and out
/// @notice The only part that calls the token. The prose is in `IEscrow`.
abstract contract EscrowAccounts is EscrowBase {
    using SafeERC20 for IERC20;

    uint48 private constant _FEE_NOTICE_SECONDS = 7 days;
    uint16 private constant _FEE_CEILING_BPS = 500;
    uint16 private constant _ONE_HUNDRED_PERCENT_BPS = 10_000;
    uint256 private constant _PLAIN_SIGNATURE_BYTES = 65;

    /* ACCOUNT */

    /// @inheritdoc IEscrow
    function deposit(uint128 amount) external override {
        _deposit(amount);
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external override {
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {
            // The allowance is there now.
        } catch {
            // Somebody may have spent the permit first; then the allowance is there too, or the transfer reverts.
        }
        _deposit(amount);
    }

    /// @inheritdoc IEscrow
    function depositWithAuthorization(
        address from,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external override {
        uint256 held = _credit(from, amount);

        IReceiveWithAuthorization token = IReceiveWithAuthorization(address(TOKEN));
        if (signature.length == _PLAIN_SIGNATURE_BYTES && from.code.length == 0) {
            // The form that every EIP-3009 token has; that for contract wallets is younger.
            (bytes32 r, bytes32 s, uint8 v) = (bytes32(signature), bytes32(signature[32:]), uint8(signature[64]));
            token.receiveWithAuthorization(from, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        } else {
            token.receiveWithAuthorization(from, address(this), amount, validAfter, validBefore, nonce, signature);
        }
        _requireDelta(held, amount);
    }

    /// @inheritdoc IEscrow
    function withdraw(uint128 amount, address to) external override {
        if (amount == 0) revert Escrow_ZeroAmount();
        _requireReceiver(to);

        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);

        TOKEN.safeTransfer(to, amount);
    }

    /* EARNINGS */

    /// @inheritdoc IEscrow
    function collect(uint32[] calldata nodeIds) external override {
        uint256 bps = feeBps();
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            uint128 earnings = _nodes[nodeIds[i]].earnings;
            if (earnings == 0) continue;
            address to = _owners[nodeIds[i]].owner;
            uint128 feeDown = uint128((earnings * bps) / _ONE_HUNDRED_PERCENT_BPS);

            _nodes[nodeIds[i]].earnings = 0;
            _fee.uncollected += feeDown;
            emit Collected(nodeIds[i], to, earnings - feeDown, feeDown);

            TOKEN.safeTransfer(to, earnings - feeDown);
        }
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
    function feeBps() public view override returns (uint16) {
        return block.timestamp < _fee.effectiveAt ? _fee.bps : _fee.announcedBps;
    }

    /* HELPERS */

    function _deposit(uint128 amount) private {
        uint256 held = _credit(msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        _requireDelta(held, amount);
    }

    function _credit(address buyer, uint128 amount) private returns (uint256 held) {
        if (amount == 0) revert Escrow_ZeroAmount();
        held = TOKEN.balanceOf(address(this));

        _accounts[buyer] += amount;
        emit Deposited(buyer, amount);
    }

    /// @dev Also what refuses a callback that took the credit out again before it was paid for.
    function _requireDelta(uint256 before, uint256 amount) private view {
        uint256 afterwards = TOKEN.balanceOf(address(this));
        uint256 delta = afterwards < before ? 0 : afterwards - before;
        if (delta != amount) revert Escrow_WrongDelta(delta, amount);
    }
}
