// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title Token that says no instead of reverting
/// @notice Every transfer returns false and moves nothing.
contract FalseToken is ERC20 {
    constructor() ERC20("False Token", "FALSE") {}

    /// @notice Mints to anyone.
    /// @param to Receiver.
    /// @param amount Atoms.
    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @inheritdoc ERC20
    function transfer(address, uint256) public pure override returns (bool) {
        return false;
    }

    /// @inheritdoc ERC20
    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }
}
