// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {ITokenHook} from "../../../contracts/mocks/ITokenHook.sol";

/// @title Buyer's wallet that accepts whatever its owner signed, for any of the owner's wallets
/// @notice It does not mix its own address into the digest, as many wallets do not.
contract OwnedWallet is IERC1271 {
    address private immutable _OWNER;

    constructor(address owner) {
        _OWNER = owner;
    }

    /// @inheritdoc IERC1271
    function isValidSignature(bytes32 hash, bytes calldata signature) external view override returns (bytes4) {
        (bytes32 r, bytes32 s, uint8 v) = abi.decode(signature, (bytes32, bytes32, uint8));
        return ecrecover(hash, v, r, s) == _OWNER ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @title Buyer's wallet that does its worst when it is asked about a signature
contract HostileWallet {
    enum Mode {
        BurnGas,
        ReturnMegabyte,
        Reenter
    }

    address private immutable _TARGET;
    Mode private _mode;

    constructor(address target) {
        _TARGET = target;
    }

    function setMode(Mode mode) external {
        _mode = mode;
    }

    /// @notice Answers yes, if at all.
    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        if (_mode == Mode.ReturnMegabyte) {
            // Assembly because Solidity cannot return memory that it did not fill.
            assembly ("memory-safe") {
                mstore(0x00, shl(224, 0x1626ba7e))
                return(0x00, 1000000)
            }
        }
        if (_mode == Mode.Reenter) {
            (bool ok,) = _TARGET.call(abi.encodeWithSignature("withdraw(uint128,address)", 1, address(this)));
            return ok ? bytes4(0) : IERC1271.isValidSignature.selector;
        }
        while (gasleft() > 100) {}
        return IERC1271.isValidSignature.selector;
    }
}

/// @title Receiver of tokens that refuses them from some moment on
contract Refuser is ITokenHook {
    bool private _refuses;

    error Refuser_No();

    constructor(HookToken token, address spender) {
        token.approve(spender, type(uint256).max);
        token.hookMe();
    }

    function refuse() external {
        _refuses = true;
    }

    function act(address target, bytes calldata data) external returns (bytes memory) {
        (bool ok, bytes memory answer) = target.call(data);
        if (!ok) revert Refuser_No();
        return answer;
    }

    /// @inheritdoc ITokenHook
    function onTokenTransfer(address, address to, uint256) external view override {
        if (_refuses && to == address(this)) revert Refuser_No();
    }
}

/// @title Website's contract that a buyer is talked into calling
contract Phisher {
    function claimPrize(address target, bytes calldata data) external returns (bool ok) {
        (ok,) = target.call(data);
    }
}
