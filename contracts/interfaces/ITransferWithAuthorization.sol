// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The transfer of EIP-3009 that anybody may send, and what tells that it was sent
/// @notice In both forms of its signature.
interface ITransferWithAuthorization {
    /// @notice Moves tokens as their owner signed.
    /// @param from Owner.
    /// @param to Receiver.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes that the owner has not used.
    /// @param v Of the signature.
    /// @param r Of the signature.
    /// @param s Of the signature.
    function transferWithAuthorization(
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
    /// @param to Receiver.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes that the owner has not used.
    /// @param signature Whatever the owner's contract accepts.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;

    /// @notice Whether an authorization is used up: sent, or cancelled by its owner. Nothing tells which.
    /// @param authorizer Owner.
    /// @param nonce Of the authorization.
    /// @return True for good once it is.
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);

    /// @notice EIP-712 domain separator of what owners sign.
    /// @return Of this chain and token.
    function DOMAIN_SEPARATOR() external view returns (bytes32);
}
