// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IReceiver} from "./interfaces/IReceiver.sol";
import {Open} from "./types/Messages.sol";

/// @title Receiver
/// @notice Code that every receiver delegates to; its immutables are therefore theirs. The prose is in `IReceiver`.
contract Receiver is IReceiver {
    using SafeERC20 for IERC20;

    /// @inheritdoc IReceiver
    address public immutable override TILL;
    IEscrow private immutable _ESCROW;
    ICourt private immutable _COURT;
    IERC20 private immutable _TOKEN;

    modifier onlyTill() {
        if (msg.sender != TILL) revert Receiver_NotTill(msg.sender, TILL);
        _;
    }

    /// @notice Made by its till.
    /// @param escrow Where its session will be.
    constructor(IEscrow escrow) {
        TILL = msg.sender;
        _ESCROW = escrow;
        _COURT = ICourt(escrow.COURT());
        _TOKEN = escrow.TOKEN();
    }

    /// @inheritdoc IReceiver
    function open(Open calldata terms) external override onlyTill {
        _TOKEN.forceApprove(address(_ESCROW), terms.amount);
        _ESCROW.deposit(terms.amount);
        // The buyer is the caller: no signature is needed.
        _ESCROW.openOneSession(terms, "");
    }

    /// @inheritdoc IReceiver
    function withdraw(address to) external override onlyTill returns (uint128 amount) {
        amount = _ESCROW.accountOf(address(this));
        if (amount != 0) _ESCROW.withdraw(amount, to);
    }

    /// @inheritdoc IReceiver
    function takeAwards(address to) external override onlyTill returns (uint64 amount) {
        amount = _COURT.jurorOf(address(this)).balance;
        if (amount == 0) return 0;
        _COURT.withdraw(amount);
        _TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IReceiver
    function giveBack(address to, uint256 amount) external override onlyTill {
        _TOKEN.safeTransfer(to, amount);
    }
}
