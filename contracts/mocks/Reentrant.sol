// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {HookToken} from "./HookToken.sol";
import {ITokenHook} from "./ITokenHook.sol";

/// @title Caller that calls again from inside a token transfer
/// @notice Acts for its test: makes any call, and one armed call more when the token calls back.
contract Reentrant is ITokenHook {
    address private _target;
    bytes private _armed;

    /// @notice Whether the armed call went through; false while nothing was armed.
    bool public reentered;
    /// @notice What the armed call answered.
    bytes public answer;

    constructor(HookToken token) {
        token.hookMe();
    }

    /// @notice Prepares the call to be made at the next callback, once.
    /// @param target Contract to call.
    /// @param data Call data.
    function arm(address target, bytes calldata data) external {
        (_target, _armed, reentered) = (target, data, false);
    }

    /// @notice Makes a call of its own and passes its failure on.
    /// @param target Contract to call.
    /// @param data Call data.
    function act(address target, bytes calldata data) external {
        Address.functionCall(target, data);
    }

    /// @inheritdoc ITokenHook
    function onTokenTransfer(address, address, uint256) external override {
        if (_armed.length == 0) return;
        bytes memory data = _armed;
        delete _armed;
        // solhint-disable-next-line avoid-low-level-calls
        (reentered, answer) = _target.call(data);
    }
}
