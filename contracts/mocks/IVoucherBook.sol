// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Session, SettleItem} from "../types/Sessions.sol";

/// @title Sessions and nodes under the hot loop, and nothing else around it
/// @notice Lets tests set any state and hold the loop against rules written one by one.
interface IVoucherBook {
    /// @notice Puts a session.
    /// @param key Its key.
    /// @param shortId First 24 bytes of its id.
    /// @param value Any state.
    function put(address key, bytes24 shortId, Session calldata value) external;

    /// @notice Puts a node.
    /// @param nodeId Its id.
    /// @param settler Its settler.
    /// @param earnings Atoms.
    function putNode(uint32 nodeId, address settler, uint96 earnings) external;

    /// @notice Settles items.
    /// @param items In any order.
    /// @param by Who settles.
    /// @param graceEnd As in `Till`.
    /// @return Positions of those that did not settle.
    function settle(SettleItem[] calldata items, address by, uint256 graceEnd) external returns (uint256[] memory);

    /// @notice Settles packed vouchers.
    /// @param vouchers In any order.
    /// @param key Whose sessions they are of.
    /// @param by Who settles.
    /// @param graceEnd As in `Till`.
    /// @return Positions of those that did not settle.
    function settleBatch(bytes calldata vouchers, address key, address by, uint256 graceEnd)
        external
        returns (uint256[] memory);

    /// @notice Whom the loop takes for the signer of each item; no session exists under any of them.
    /// @param items Items.
    /// @return 0 for nobody.
    function signersOf(SettleItem[] calldata items) external returns (address[] memory);

    /// @notice A session as it is now.
    /// @param key Its key.
    /// @param shortId First 24 bytes of its id.
    /// @return Its state.
    function session(address key, bytes24 shortId) external view returns (Session memory);

    /// @notice A node as it is now.
    /// @param nodeId Its id.
    /// @return settler Its settler.
    /// @return earnings Atoms.
    function node(uint32 nodeId) external view returns (address settler, uint96 earnings);

    /// @notice Domain of the vouchers' signatures.
    /// @return Fixed.
    function DOMAIN() external view returns (bytes32);

    /// @notice Reads a packed voucher.
    /// @param vouchers Batch.
    /// @param i Its position.
    /// @return shortId First 24 bytes of the session id.
    /// @return throughSeq Last order.
    /// @return amount Atoms.
    function voucherAt(bytes calldata vouchers, uint256 i)
        external
        pure
        returns (bytes24 shortId, uint256 throughSeq, uint256 amount);

    /// @notice Takes a voucher out.
    /// @param vouchers Batch.
    /// @param i Its position.
    /// @return rest The others.
    function removed(bytes calldata vouchers, uint256 i) external pure returns (bytes memory rest);
}
