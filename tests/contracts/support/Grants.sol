// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {KeyCaps} from "../../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open} from "../../../contracts/types/Messages.sol";
import {Fixture} from "./Fixture.sol";

/// @title A buyer with money in its account, and what it lets its key do with it
abstract contract Grants is Fixture {
    uint128 internal constant PER_SESSION = 100;
    uint128 internal constant PER_DAY = 150;
    uint128 internal constant TOTAL = 400;
    uint48 internal constant KEY_END = START + 30 days;
    uint32 internal constant STEP = 65_536;

    function setUp() public virtual override {
        super.setUp();
        _deposit(10_000);
    }

    function _setKey(KeyCaps memory caps) internal {
        vm.prank(buyer.addr);
        escrow.setKey(key.addr, caps);
    }

    /// @dev Opened by whoever calls, signed by the key.
    function _openByKey(uint256 salt, uint128 amount) internal returns (Open memory terms) {
        terms = _salted(salt, amount);
        escrow.openOneSession(terms, _signOpen(key, terms));
    }

    function _refuseByKey(uint256 salt, uint128 amount, bytes memory reason) internal {
        Open memory terms = _salted(salt, amount);
        bytes memory signature = _signOpen(key, terms);
        vm.expectRevert(reason);
        escrow.openOneSession(terms, signature);
    }

    function _salted(uint256 salt, uint128 amount) internal view returns (Open memory terms) {
        terms = _terms(amount);
        terms.salt = bytes32(salt);
    }

    function _grant(uint32 nonce) internal view returns (KeyGrant memory) {
        return KeyGrant({
            buyer: buyer.addr,
            key: key.addr,
            perSession: PER_SESSION,
            perDay: PER_DAY,
            total: TOTAL,
            expiresAt: KEY_END,
            nodesRoot: 0,
            nonce: nonce,
            validUntil: START + 1 hours
        });
    }

    function _signGrant(Actor memory signer, KeyGrant memory grant) internal view returns (bytes memory) {
        return _sign(signer, Messages.hash(grant));
    }

    function _spent() internal view returns (uint64 today, uint64 total) {
        return (escrow.keyOf(buyer.addr, key.addr).spentToday, escrow.keyOf(buyer.addr, key.addr).spent);
    }

    function _caps() internal pure returns (KeyCaps memory) {
        return KeyCaps(PER_SESSION, PER_DAY, TOTAL, KEY_END, 0);
    }

    function _leaf(uint32 id) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(id))));
    }

    /// @dev Root of a list of two nodes; the proof of either is the leaf of the other.
    function _rootOf(uint32 one, uint32 other) internal pure returns (bytes32) {
        return Hashes.commutativeKeccak256(_leaf(one), _leaf(other));
    }
}
