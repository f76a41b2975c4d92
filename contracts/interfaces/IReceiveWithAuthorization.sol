// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The one transfer of EIP-3009 that nobody can use up but its receiver
/// @notice In both forms of its signature.
interface IReceiveWithAuthorization {
    /// @notice Moves tokens to the caller as their owner signed.
    /// @param from Owner.
    /// @param to The caller.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes that the owner has not used.
    /// @param v Of the signature.
    /// @param r Of the signature.
    /// @param s Of the signature.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice As above, for owners that are contracts.
    /// @param from Owner.
    /// @param to The caller.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes that the owner has not used.
    /// @param signature Whatever the owner's contract accepts.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}
