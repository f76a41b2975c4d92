// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @title Token with EIP-3009 that misbehaves in whichever way it is told
/// @notice Plain until then.
contract HostileDollar is ERC3009 {
    uint256 private _fee;
    address private _shrinking;
    address private _target;
    bytes private _armed;

    constructor() ERC20("Hostile Dollar", "HUSD") EIP712("Hostile Dollar", "1") {}

    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice The next transfer arrives so much short.
    function takeFee(uint256 fee) external {
        _fee = fee;
    }

    /// @notice In the middle of the next transfer, an account loses three quarters of what it has.
    function shrink(address account) external {
        _shrinking = account;
    }

    /// @notice In the middle of the next transfer, a call is made.
    function arm(address target, bytes calldata data) external {
        (_target, _armed) = (target, data);
    }

    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function _update(address from, address to, uint256 amount) internal override {
        uint256 fee = from == address(0) || to == address(0) ? 0 : _fee;
        super._update(from, to, amount - fee);
        if (fee > 0) _fee = 0;
        address account = _shrinking;
        if (account != address(0)) {
            _shrinking = address(0);
            _burn(account, (balanceOf(account) / 4) * 3);
        }
        if (_armed.length == 0) return;
        bytes memory data = _armed;
        delete _armed;
        (bool ok,) = _target.call(data);
        ok; // whether it worked, the test sees in the balances
    }
}
