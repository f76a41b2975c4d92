// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title What a token with callbacks calls
/// @notice Called on sender and receiver of every transfer, when they registered for it.
interface ITokenHook {
    /// @notice Runs before the balances move.
    /// @param from Sender of the tokens.
    /// @param to Receiver of the tokens.
    /// @param amount Atoms on the move.
    function onTokenTransfer(address from, address to, uint256 amount) external;
}
