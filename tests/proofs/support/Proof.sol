// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {IEscrow} from "./../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "./../../../contracts/interfaces/INodeRegistry.sol";
import {Signatures} from "./../../../contracts/libraries/Signatures.sol";
import {Claim} from "./../../../contracts/types/Claims.sol";
import {Open} from "./../../../contracts/types/Messages.sol";
import {Session} from "./../../../contracts/types/Sessions.sol";
import {PlainToken} from "./PlainToken.sol";

/// @title What halmos adds to the test engine
interface IHalmos {
    /// @notice From now on every slot of an account may hold anything.
    /// @param account Contract.
    function enableSymbolicStorage(address account) external;
}

/// @title Escrow and registry, as they ship, in any state whatever
/// @notice The arguments of a `check_` function are every value of their type at once, and the storage of the contracts
/// is every storage at once: a proof over one call is a proof over the last call of any history.
abstract contract Proof is Test {
    IHalmos internal constant HALMOS = IHalmos(address(uint160(uint256(keccak256("svm cheat code")))));
    address private constant _REGISTRY = address(0x4E61);
    // By path, because halmos looks for names in another folder than ours.
    string private constant _ESCROW_CODE = "build/forge-proofs/Escrow.sol/Escrow.json";
    string private constant _REGISTRY_CODE = "build/forge-proofs/NodeRegistry.sol/NodeRegistry.json";
    address internal constant COURT = address(0xC0047);
    address internal constant TREASURY = address(0x7EA5);
    uint16 internal constant FEE_CEILING_BPS = 500;
    uint32 internal constant GRACE = 15 minutes;
    uint48 internal constant DISPUTE = 36 hours;
    uint8 internal constant OPEN = 1;
    uint8 internal constant CLOSED = 3;
    uint8 internal constant CLAIMED = 4;
    // Of the committed storage layout: what the contracts keep and do not show.
    uint256 private constant _OWNERS_SLOT = 8;
    uint256 private constant _NODES_OF_SLOT = 3;

    PlainToken internal token;
    IEscrow internal escrow;
    INodeRegistry internal registry;

    function setUp() public virtual {
        token = _newToken();
        bytes memory arguments =
            abi.encode(token, _REGISTRY, COURT, TREASURY, uint32(72 hours), GRACE, uint32(6 hours));
        escrow = IEscrow(deployCode(_ESCROW_CODE, arguments));
        arguments = abi.encode(token, escrow, uint128(1000e6), uint48(14 days), DISPUTE);
        deployCodeTo(_REGISTRY_CODE, arguments, _REGISTRY);
        registry = INodeRegistry(_REGISTRY);

        HALMOS.enableSymbolicStorage(address(token));
        HALMOS.enableSymbolicStorage(address(escrow));
        HALMOS.enableSymbolicStorage(_REGISTRY);
    }

    function _newToken() internal virtual returns (PlainToken) {
        return new PlainToken();
    }

    /// @dev The rules of a session that other proofs rest on, and that every proof of a session proves again.
    function _sound(Session memory held, Claim memory claimed) internal pure returns (bool) {
        uint256 undecided = uint256(claimed.pending) + claimed.held;
        if (held.flags & CLAIMED == 0 && undecided > 0) return false;
        return held.paid + undecided <= held.deposited;
    }

    /// @dev 0: never opened. Other bits than these no call sets.
    function _isKnown(uint8 flags) internal pure returns (bool) {
        return flags == 0 || flags & ~CLAIMED == OPEN || flags & ~CLAIMED == CLOSED;
    }

    /// @dev The owner that the escrow pays; the registry told it.
    function _payee(uint32 nodeId) internal view returns (address) {
        return address(uint160(uint256(vm.load(address(escrow), keccak256(abi.encode(nodeId, _OWNERS_SLOT))))));
    }

    /// @dev A provider with one node: each node is told when stake falls short, and what is proven of one is of all.
    function _assumeOneNode(address owner) internal view {
        vm.assume(uint256(vm.load(address(registry), _nodesOf(owner))) == 1);
    }

    function _assumeOnlyNode(address owner, uint32 nodeId) internal view {
        _assumeOneNode(owner);
        uint256 first = uint256(vm.load(address(registry), keccak256(abi.encode(_nodesOf(owner)))));
        vm.assume(uint32(first) == nodeId);
    }

    function _nodesOf(address owner) private pure returns (bytes32) {
        return keccak256(abi.encode(owner, _NODES_OF_SLOT));
    }

    function _claim(bytes32 sessionId) internal view returns (Claim memory) {
        return escrow.claimOf(sessionId);
    }

    function _locked(uint32 nodeId) internal view returns (uint256) {
        return registry.provider(_payee(nodeId)).locked;
    }

    function _earnings(uint32 nodeId) internal view returns (uint256 earnings) {
        (, earnings) = escrow.nodeAccount(nodeId);
    }

    function _held(Open calldata terms) internal view returns (Session memory) {
        return escrow.session(escrow.sessionIdOf(terms), terms.key);
    }

    /// @dev Whoever a signature recovers to is any address: the prover knows no keys.
    function _signerOf(bytes32 structHash, bytes calldata signature) internal view returns (address) {
        return Signatures.signerOf(_digest(structHash), signature);
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(escrow.DOMAIN_SEPARATOR(), structHash);
    }

    function _by(address caller, bytes memory data) internal returns (bool ok) {
        vm.prank(caller);
        (ok,) = address(escrow).call(data);
    }

    function _same(Session memory a, Session memory b) internal pure returns (bool) {
        return keccak256(abi.encode(a)) == keccak256(abi.encode(b));
    }

    function _same(Claim memory a, Claim memory b) internal pure returns (bool) {
        return keccak256(abi.encode(a)) == keccak256(abi.encode(b));
    }

    function _one(Open calldata terms) internal pure returns (Open[] memory list) {
        list = new Open[](1);
        list[0] = terms;
    }
}
