// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title Token that misbehaves in whichever way it is told
/// @notice Plain until then.
contract HostileToken is ERC20 {
    bool private _saysNo;
    bool private _refusesZero;
    uint256 private _missing;
    address private _shrinking;

    error HostileToken_Zero();

    constructor() ERC20("Hostile Token", "HOSTILE") {}

    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice `transfer` returns false and moves nothing; `transferFrom` works.
    function sayNo() external {
        _saysNo = true;
    }

    function refuseZero() external {
        _refusesZero = true;
    }

    /// @notice Every transfer moves so much less than it was asked to.
    function moveLess(uint256 missing) external {
        _missing = missing;
    }

    /// @notice In the middle of the next transfer, an account loses three quarters of what it has.
    function shrink(address account) external {
        _shrinking = account;
    }

    /// @notice An account has more than before, of nobody's doing.
    function grow(address account, uint256 amount) external {
        _mint(account, amount);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 27;
    }

    /// @inheritdoc ERC20
    function transfer(address to, uint256 amount) public override returns (bool) {
        return !_saysNo && super.transfer(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (amount == 0 && _refusesZero) revert HostileToken_Zero();
        bool isMove = from != address(0) && to != address(0);
        super._update(from, to, isMove ? amount - _missing : amount);
        address account = _shrinking;
        if (account == address(0)) return;
        _shrinking = address(0);
        _burn(account, (balanceOf(account) / 4) * 3);
    }
}
