// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title Token that refuses some receivers, like USDC
/// @notice Otherwise plain.
contract BlocklistToken is ERC20 {
    mapping(address account => bool refused) private _blocked;

    error BlocklistToken_Blocked(address to);

    constructor() ERC20("Blocklist Token", "BLOCK") {}

    /// @notice Mints to anyone.
    /// @param to Receiver.
    /// @param amount Atoms.
    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice Refuses a receiver from now on.
    /// @param account Receiver to refuse.
    function blockAccount(address account) external {
        _blocked[account] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (_blocked[to]) revert BlocklistToken_Blocked(to);
        super._update(from, to, amount);
    }
}
