// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {ITokenHook} from "../../../contracts/mocks/ITokenHook.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {TestDollar} from "../../../contracts/TestDollar.sol";

/// @title Test Dollar that calls back, like ERC-777, and mints without a limit
contract HookDollar is TestDollar {
    mapping(address account => bool registered) private hooked;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function hookMe() external {
        hooked[msg.sender] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (hooked[from]) ITokenHook(from).onTokenTransfer(from, to, amount);
        super._update(from, to, amount);
        if (hooked[to]) ITokenHook(to).onTokenTransfer(from, to, amount);
    }
}

/// @title Contract that accepts what its owner signs, by ERC-1271
abstract contract Owned {
    address private immutable OWNER;

    constructor(address owner) {
        OWNER = owner;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (bytes32 r, bytes32 s, uint8 v) = (bytes32(signature), bytes32(signature[32:]), uint8(signature[64]));
        return ecrecover(digest, v, r, s) == OWNER ? this.isValidSignature.selector : bytes4(0);
    }
}

/// @title Buyer that calls back in the middle of its transfers
contract Thief is Reentrant, Owned {
    constructor(HookToken token, address owner) Reentrant(token) Owned(owner) {}
}

/// @title Buyer that is a contract
contract ContractBuyer is Owned {
    constructor(address owner) Owned(owner) {}

    function act(address target, bytes calldata data) external {
        (bool ok, bytes memory result) = target.call(data);
        if (ok) return;
        // Assembly because Solidity cannot revert with bytes that it did not encode.
        assembly ("memory-safe") {
            revert(add(result, 0x20), mload(result))
        }
    }
}
