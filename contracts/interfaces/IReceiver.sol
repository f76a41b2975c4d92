// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Open} from "./../types/Messages.sol";

/// @title The address one quote is paid to
/// @notice A buyer in the escrow that does only what its till tells it, which is no more than `ITill` says.
/// Keeps nothing but tokens.
interface IReceiver {
    /// @notice Only the till may call.
    error Receiver_NotTill(address got, address limit);

    /// @notice Deposits the session's amount and opens it. Till only.
    /// @param terms Terms with this receiver as the buyer.
    function open(Open calldata terms) external;

    /// @notice Sends all of its account in the escrow. Till only.
    /// @param to Whoever paid.
    /// @return amount Atoms sent.
    function withdraw(address to) external returns (uint128 amount);

    /// @notice Sends all that the court owes it. Till only.
    /// @param to Whoever paid.
    /// @return amount Atoms sent.
    function takeAwards(address to) external returns (uint64 amount);

    /// @notice Sends some of the tokens it holds. Till only.
    /// @param to Whoever sent them.
    /// @param amount Atoms.
    function giveBack(address to, uint256 amount) external;

    /// @notice The only caller it obeys.
    /// @return The till that made it.
    function TILL() external view returns (address);
}
