// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Token that returns nothing, like USDT
/// @notice Otherwise plain.
contract SilentToken {
    /// @notice Atoms of an account.
    mapping(address account => uint256 atoms) public balanceOf;

    error SilentToken_AboveBalance(uint256 got, uint256 limit);

    /// @notice Mints to anyone.
    /// @param to Receiver.
    /// @param amount Atoms.
    function faucet(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    /// @notice Moves tokens of the caller.
    /// @param to Receiver.
    /// @param amount Atoms.
    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    /// @notice Moves tokens of anybody.
    /// @param from Sender.
    /// @param to Receiver.
    /// @param amount Atoms.
    function transferFrom(address from, address to, uint256 amount) external {
        _move(from, to, amount);
    }

    /// @notice Every allowance is unlimited.
    function approve(address, uint256) external pure {}

    function _move(address from, address to, uint256 amount) private {
        if (amount > balanceOf[from]) revert SilentToken_AboveBalance(amount, balanceOf[from]);
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}
