// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Test Dollar
/// @notice Worthless money of local chains that behaves like USDC: 6 decimals, EIP-2612 permits, EIP-3009
/// authorizations with random nonces, each signed as (v, r, s) or as bytes (which contract wallets can sign too).
contract TestDollar is ERC20Permit, ERC3009 {
    /// @notice Most atoms that one call of the faucet mints.
    uint256 public constant FAUCET_LIMIT = 1_000_000e6;

    uint256 private constant _HARDHAT_CHAIN_ID = 31_337;
    uint256 private constant _GETH_DEV_CHAIN_ID = 1337;

    /// @notice Anyone can mint, so it must not exist where money is real.
    error TestDollar_NotLocal(uint256 chainId);
    /// @notice One call mints at most `limit`.
    error TestDollar_AboveFaucet(uint256 got, uint256 limit);

    constructor() ERC20("Test Dollar", "TUSD") ERC20Permit("Test Dollar") {
        if (block.chainid != _HARDHAT_CHAIN_ID && block.chainid != _GETH_DEV_CHAIN_ID) {
            revert TestDollar_NotLocal(block.chainid);
        }
    }

    /// @notice Mints. Anyone may call, as often as they like.
    /// @param to Receiver.
    /// @param amount Atoms, at most `FAUCET_LIMIT`.
    function faucet(address to, uint256 amount) external {
        if (amount > FAUCET_LIMIT) revert TestDollar_AboveFaucet(amount, FAUCET_LIMIT);
        _mint(to, amount);
    }

    /// @notice EIP-3009 transfer, authorized by a signature as bytes. Anyone may send it.
    /// @param from Payer, who signed.
    /// @param to Receiver.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes the payer has not used.
    /// @param signature 65 bytes, or whatever the payer's contract accepts.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
        );
        _requireAuthorized(from, structHash, signature);
        _transferWithAuthorization(from, to, value, validAfter, validBefore, nonce);
    }

    /// @notice EIP-3009 transfer that only its receiver may send, authorized by a signature as bytes.
    /// @param from Payer, who signed.
    /// @param to Receiver; must be the caller.
    /// @param value Atoms.
    /// @param validAfter Unix seconds, exclusive.
    /// @param validBefore Unix seconds, exclusive.
    /// @param nonce Any 32 bytes the payer has not used.
    /// @param signature 65 bytes, or whatever the payer's contract accepts.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
        );
        _requireAuthorized(from, structHash, signature);
        if (to != msg.sender) revert ERC20InvalidReceiver(to);
        _transferWithAuthorization(from, to, value, validAfter, validBefore, nonce);
    }

    /// @notice Voids an authorization that was not used yet, by a signature as bytes.
    /// @param authorizer Who signed.
    /// @param nonce Nonce of the authorization.
    /// @param signature 65 bytes, or whatever the authorizer's contract accepts.
    function cancelAuthorization(address authorizer, bytes32 nonce, bytes calldata signature) external {
        bytes32 structHash = keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce));
        _requireAuthorized(authorizer, structHash, signature);
        _cancelAuthorization(authorizer, nonce);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function _requireAuthorized(address signer, bytes32 structHash, bytes calldata signature) private view {
        bytes32 digest = _hashTypedDataV4(structHash);
        if (!SignatureChecker.isValidSignatureNow(signer, digest, signature)) revert ERC3009InvalidSignature();
    }
}
