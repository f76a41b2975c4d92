// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Messages} from "../types/Messages.sol";
import {SettleItem} from "../types/Sessions.sol";

/// @title Who signed a voucher
/// @notice The hot half of `settle`. Same answer as `Messages.hash(Voucher)` and OpenZeppelin's ECDSA, for a quarter of
/// the gas.
library Vouchers {
    /// @dev Highest `s` of a signature that nobody else could have made another of.
    uint256 private constant _HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant _LOW_255_BITS = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF;

    /// @notice Reads an item and finds who signed it.
    /// @param item Voucher and signature; its first four words are the voucher's fields in order.
    /// @param domain EIP-712 domain separator.
    /// @return signer 0 when `s` is high, the signature recovers to nobody, or a number does not fit its field.
    /// @return throughSeq Below 2^32, unless the signer is 0.
    /// @return amount Below 2^128, unless the signer is 0.
    function read(SettleItem calldata item, bytes32 domain)
        internal
        view
        returns (address signer, uint256 throughSeq, uint256 amount)
    {
        bytes32 typeHash = Messages.VOUCHER_TYPEHASH;
        // Assembly because a settlement pays for this once per session: it hashes the fields where they lie in
        // calldata and allocates nothing. `Vouchers.t.sol` holds it against the plain way over random vouchers.
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 0x20), item, 0x80)
            let structHash := keccak256(free, 0xa0)

            mstore(free, hex"1901")
            mstore(add(free, 0x02), domain)
            mstore(add(free, 0x22), structHash)
            let digest := keccak256(free, 0x42)

            let vs := calldataload(add(item, 0xa0))
            let s := and(vs, _LOW_255_BITS)
            mstore(free, digest)
            mstore(add(free, 0x20), add(shr(255, vs), 27))
            mstore(add(free, 0x40), calldataload(add(item, 0x80)))
            mstore(add(free, 0x60), s)
            // The precompile answers nothing at all for a signature by nobody.
            mstore(0x00, 0)
            throughSeq := calldataload(add(item, 0x20))
            amount := calldataload(add(item, 0x40))
            if iszero(or(gt(s, _HALF_ORDER), or(shr(32, throughSeq), shr(128, amount)))) {
                pop(staticcall(gas(), 1, free, 0x80, 0x00, 0x20))
            }
            signer := mload(0x00)
        }
    }
}
