// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ITokenHook} from "./ITokenHook.sol";

/// @title Token that calls back, like ERC-777
/// @notice Otherwise plain. Whoever registered is called in the middle of every transfer that touches it.
contract HookToken is ERC20 {
    mapping(address account => bool registered) private _hooked;

    constructor() ERC20("Hook Token", "HOOK") {}

    /// @notice Mints to anyone.
    /// @param to Receiver.
    /// @param amount Atoms.
    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice Calls the caller from now on.
    function hookMe() external {
        _hooked[msg.sender] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (_hooked[from]) ITokenHook(from).onTokenTransfer(from, to, amount);
        super._update(from, to, amount);
        if (_hooked[to]) ITokenHook(to).onTokenTransfer(from, to, amount);
    }
}
